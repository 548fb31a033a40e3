"""Propose, decide: a state that somebody asks for, and what can become of it.

A decision is a value. It names everything that is to be written, so that whoever asked can carry it out in the
transaction in which it read what the decision rests on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from runlane.protocol.states import StateType, default_name

from ..clock import Micros
from .details import NO_DETAILS, StateDetails
from .runs import Bookkeeping


class Proposed(Struct, frozen=True):
    """A state that somebody asks for. An empty name means the type's own. `data` is JSON, as it came."""

    type: StateType
    name: str = ""
    message: str | None = None
    data: bytes | None = None
    details: StateDetails = NO_DETAILS

    @property
    def label(self) -> str:
        """The state's name."""
        return self.name or default_name(self.type)

    @property
    def result(self) -> bytes | None:
        """What the run has come to, if this is its end: the data of a COMPLETED state, where they are a result."""
        return self.data if self.type is StateType.COMPLETED and holds_result(self.data) else None


def holds_result(data: bytes | None) -> bool:
    """Say whether a state's data is a result to be kept: not null, nor the mark of one that was not kept."""
    value: Any = None if data is None else msgspec.json.decode(data)
    if isinstance(value, dict):
        return value.get("type") != "unpersisted"  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return value is not None


# --- What a written state brings with it --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TakeSlots:
    """The run takes a concurrency slot of each of these tags, unless it holds it already."""

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FreeSlots:
    """The run gives back all concurrency slots that it holds."""


@dataclass(frozen=True, slots=True)
class InsertCache:
    """The written state is the one to find under `key` from now on, until `expiration` (None: for ever)."""

    key: str
    expiration: Micros | None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """The run waits in its TaskQueue, from its scheduled time on. Without this a SCHEDULED run does not."""

    retry_lane: bool


@dataclass(frozen=True, slots=True)
class EndLease:
    """Nobody holds the run any more. A holder that has not said so itself is told."""


@dataclass(frozen=True, slots=True)
class AskToStop:
    """The holder is asked to cancel the run; the lease stays."""


@dataclass(frozen=True, slots=True)
class SetRetryType:
    """How a flow run is retried: `in_process`, by those who run it, or by `reschedule`; None: not at all."""

    retry_type: str | None


Effect: TypeAlias = TakeSlots | FreeSlots | InsertCache | Dispatch | EndLease | AskToStop | SetRetryType


class Write(Struct, frozen=True):
    """All that is to be written, in one transaction: a state, the run's books, and what else follows.

    `state` is complete: it has its name and the run's ids, and a SCHEDULED one its time. `timestamp` is later
    than that of the state before it.
    """

    state: Proposed
    timestamp: Micros
    books: Bookkeeping
    effects: tuple[Effect, ...] = ()


# --- Decisions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept:
    """The proposed state is written, perhaps under another name."""

    write: Write


@dataclass(frozen=True, slots=True)
class Reject:
    """The proposed state is not written. Another one is, in its place; or none, and the run stays as it is."""

    reason: str
    write: Write | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is written; whoever asked may ask again after so many seconds."""

    reason: str
    delay_seconds: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Nothing is written, and whoever asked should give up."""

    reason: str


Decision: TypeAlias = Accept | Reject | Wait | Abort
