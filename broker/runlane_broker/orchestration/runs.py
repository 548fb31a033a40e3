"""A run as the rules see it: its state, what is counted of it, how it is retried."""

from __future__ import annotations

from enum import Enum, auto

from msgspec import Struct

from runlane.protocol.states import StateType

from ..clock import Micros
from .details import NO_DETAILS, StateDetails


class RunKind(Enum):
    """Whose run it is."""

    TASK = auto()
    FLOW = auto()


class Retries(Struct, frozen=True):
    """How a run is retried. `delays` are seconds: the n-th failure waits `delays[n]`, the last one for ever on.

    A delay is stretched by a random factor between 1 and 1 + `jitter`.
    """

    limit: int
    delays: tuple[float, ...]
    jitter: float

    def delay(self, failures: int, random: float) -> float:
        """Return the seconds to wait after `failures` earlier failures; `random` is in [0, 1)."""
        if not self.delays:
            return 0.0
        base = self.delays[min(failures, len(self.delays) - 1)]
        return base * (1 + self.jitter * random)


class CurrentState(Struct, frozen=True):
    """The state that a run is in. `has_result`: it came with data that must not get lost (see `holds_result`)."""

    type: StateType
    name: str
    timestamp: Micros
    details: StateDetails = NO_DETAILS
    has_result: bool = False


class Bookkeeping(Struct, frozen=True):
    """What follows from a run's states and is kept with the run. Times and durations are microseconds.

    `failures` counts the failures out of RUNNING since `run_count` was last reset; `flow_run_run_count` is the
    `run_count` that the enclosing flow run had when this run last started.
    """

    run_count: int = 0
    failures: int = 0
    flow_run_run_count: int = 0
    expected_start_time: Micros | None = None
    next_scheduled_start_time: Micros | None = None
    start_time: Micros | None = None
    end_time: Micros | None = None
    total_run_time: int = 0


class Run(Struct, frozen=True):
    """A run as its row has it. `state` is None while it is being created.

    `flow_run_id` is the enclosing flow run of a task run; `deployment_id` and `infrastructure_pid` are a flow
    run's.
    """

    id: str
    kind: RunKind
    state: CurrentState | None
    books: Bookkeeping = Bookkeeping()
    retries: Retries = Retries(0, (), 0.0)
    flow_run_id: str | None = None
    deployment_id: str | None = None
    infrastructure_pid: str | None = None
