"""What the rules need to know from outside of the run. Whoever asks them reads it in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from msgspec import Struct

from runlane.protocol.states import StateType

from ..clock import Micros
from .decisions import Proposed


class Lease(Enum):
    """By whom a run is held."""

    RUNLANE = auto()  # a worker that reports over its own socket
    PREFECT_SENT = auto()  # a Prefect worker that was sent the run and has not reported a state of it yet
    PREFECT = auto()  # a Prefect worker that has


@dataclass(frozen=True, slots=True)
class EnclosingFlow:
    """The flow run that a task run belongs to. `state_type` is None where it has no state."""

    id: str
    state_type: StateType | None
    run_count: int
    pause_timeout: Micros | None = None
    pause_reschedule: bool = False


@dataclass(frozen=True, slots=True)
class TagLimit:
    """The concurrency limit of one of the run's tags. `taken` leaves out the slot that this run may hold itself.

    A *global* limit is told to wait about as long as its slots are held on average, and goes before the tag's
    own.
    """

    tag: str
    slots: int
    taken: int
    is_global: bool = False
    average_seconds: float | None = None


#: How long one waits for a concurrency slot before asking again, in seconds.
SLOT_WAIT_SECONDS: Final = 10


class Facts(Struct, frozen=True):
    """What the rules need to know from outside.

    - `in_queue`: of a flow run, whether it is in a work queue;
    - `lease`: who holds the run, if anybody does; `from_holder`: it is known that the holder itself asks;
    - `flow`: the enclosing flow run, of a task run that has one;
    - `cached`: the COMPLETED state that stands under the proposed state's cache key, the newest that has not
      expired; asked for where the proposed state is RUNNING and has a key;
    - `limits`: the active concurrency limits on the run's tags; asked for where it is RUNNING;
    - `random`: a random number in [0, 1).
    """

    lease: Lease | None = None
    from_holder: bool = False
    flow: EnclosingFlow | None = None
    cached: Proposed | None = None
    limits: tuple[TagLimit, ...] = ()
    random: float = 0.0
    in_queue: bool = False
    slot_wait_seconds: int = SLOT_WAIT_SECONDS
