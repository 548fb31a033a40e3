"""The events of a history. `at` is seconds of one monotonic clock; names of producers and workers are free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

#: Whose faults concern everybody.
BROKER: Final = "broker"
DATABASE: Final = "database"
#: The time of day, which somebody may set.
CLOCK: Final = "clock"


class _Event(msgspec.Struct, frozen=True, tag_field="event", omit_defaults=True, kw_only=True):
    at: float


# Producers -----------------------------------------------------------------------------------------------------


class Submitted(_Event, frozen=True, tag=True):
    """A producer asks for a run, perhaps again. `payload` is anything that equals `RunRow.payload`, or empty."""

    producer: str
    run: str
    key: str
    payload: str = ""
    idempotency: str | None = None
    priority: int = 0
    #: It shall not start at once: there is nothing to be said of its place in the order.
    delayed: bool = False


class Acknowledged(_Event, frozen=True, tag=True):
    """The broker says that a run is there: `as_run` is it, where an idempotency key had one already.

    `payload` is that of the submit which is answered, if its producer has several of this id under way.
    """

    producer: str
    run: str
    as_run: str
    payload: str | None = None


class Refused(_Event, frozen=True, tag=True):
    """The broker says that it will never be there (and not: later)."""

    producer: str
    run: str
    code: str


class Watched(_Event, frozen=True, tag=True):
    """A producer asks to be told of the end."""

    producer: str
    run: str


class Unwatched(_Event, frozen=True, tag=True):
    """A producer does not ask any more, or is told that there is no such run."""

    producer: str
    run: str


class Told(_Event, frozen=True, tag=True):
    """A producer is told of the end; `type` is the state's."""

    producer: str
    run: str
    type: str


class CancelAsked(_Event, frozen=True, tag=True):
    """Somebody asks for a cancellation."""

    run: str


class CancelAnswered(_Event, frozen=True, tag=True):
    """The broker says which state the run is in now."""

    run: str
    type: str


# Workers -------------------------------------------------------------------------------------------------------


class Subscribed(_Event, frozen=True, tag=True):
    """A session is open, or resumed. What is in neither list is no longer this worker's."""

    worker: str
    session: str
    limit: int
    resumed: tuple[str, ...] = ()
    lost: tuple[tuple[str, int], ...] = ()


class _OfLease(_Event, frozen=True):
    worker: str
    session: str
    run: str
    attempt: int


class Received(_OfLease, frozen=True, tag=True):
    """A run was pushed and has arrived."""


class Started(_OfLease, frozen=True, tag=True):
    """Its execution begins."""


class Executed(_OfLease, frozen=True, tag=True):
    """Its execution is done, the side effect with it."""


class Reported(_OfLease, frozen=True, tag=True):
    """Its end is reported, perhaps again; `type` is the state's."""

    type: str


class Released(_OfLease, frozen=True, tag=True):
    """It is given back."""


class Postponed(_OfLease, frozen=True, tag=True):
    """The broker has confirmed that it was given back and is not wanted before `until`."""

    until: float


class Recorded(_OfLease, frozen=True, tag=True):
    """The report has its verdict."""

    gone: bool = False


class LeaseLost(_OfLease, frozen=True, tag=True):
    """The broker says that the lease is over."""


# Whoever arranges it -------------------------------------------------------------------------------------------


class Fault(_Event, frozen=True, tag=True):
    """Something is done to `who`: killed, paused, cut, quit; whatever it is, until `until` if it lasts."""

    who: str
    what: str
    until: float | None = None


class Quiet(_Event, frozen=True, tag=True):
    """Nothing was disturbed for so long that all must be done by now."""


class RunRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of `task_run`."""

    id: str
    key: str
    type: str
    name: str
    state_id: str
    attempt: int
    session: str | None
    idempotency: str | None
    payload: str


class StateRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of `task_run_state`."""

    id: str
    run: str
    type: str
    name: str
    timestamp: int
    attempt: int
    session: str | None


class Snapshot(_Event, frozen=True, tag=True):
    """All runs and all states of the database, read in one transaction."""

    runs: tuple[RunRow, ...]
    states: tuple[StateRow, ...]


OfLease: TypeAlias = Received | Started | Executed | Reported | Released | Postponed | Recorded | LeaseLost
Event: TypeAlias = (
    Submitted | Acknowledged | Refused | Watched | Unwatched | Told | CancelAsked | CancelAnswered | Subscribed
    | Received | Started | Executed | Reported | Released | Postponed | Recorded | LeaseLost | Fault | Quiet
    | Snapshot
)  # fmt: skip

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def dump(event: Event) -> bytes:
    """Return an event as a line of JSON, with its end of line."""
    return _encoder.encode(event) + b"\n"


def load(lines: Iterable[bytes]) -> list[Event]:
    """Return the events of such lines."""
    return [_decoder.decode(line) for line in lines if line.strip()]
