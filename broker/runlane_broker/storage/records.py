"""What goes into the store and what comes out of it: frozen dataclasses, no rows, no tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Any, Final

from runlane.protocol.states import StateType

from ..orchestration.decisions import Proposed
from ..orchestration.inputs import upstream_runs
from .queue_records import Served
from .run_records import RunRecord, StateRecord

#: The dialect of a session whose worker is Prefect's.
PREFECT: Final = "prefect"

#: Why a SCHEDULED run is not handed out (`task_run.withheld`): its client waits by itself, and nobody else starts
#: it; or it waits for other runs to end.
CLIENT_WAITS: Final = 1
WAITS_FOR_RUNS: Final = 2

#: Runs of this lane go before the others of their priority.
RETRY_LANE: Final = 0
SCHEDULED_LANE: Final = 1


@dataclass(frozen=True, slots=True)
class Holder:
    """Who takes leases: a session, as this broker knows it. Every lease requires the row to say the same.

    With a `dialect` its worker wants to read runs as they are shown.
    """

    session_id: str
    broker_id: str
    epoch: int
    dialect: str | None = None


@dataclass(frozen=True, slots=True)
class Surface:
    """What only runs have that are created over HTTP.

    `initial` is the state to create it in. `labels` and `task_inputs` are JSON objects.
    """

    initial: Proposed
    flow_run_id: str | None = None
    task_version: str | None = None
    cache_key: str | None = None
    cache_expiration: int | None = None
    labels: dict[str, Any] = field(default_factory=dict[str, Any])
    task_inputs: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def upstream(self) -> tuple[str, ...]:
        """The runs that must have ended before the broker hands this one out."""
        return upstream_runs(self.task_inputs) if self.dispatched else ()

    @property
    def dispatched(self) -> bool:
        """Whether the broker hands it out at first (known before it is written: `orchestration` decides so)."""
        background = self.flow_run_id is None or self.initial.details.deferred
        return background and self.initial.type is StateType.SCHEDULED


@dataclass(frozen=True, slots=True)
class NewRunRecord:
    """A run to be inserted. Times and delays in microseconds, except `retry_delay` and `timeout` (seconds).

    With `holder` the lease is taken in the same transaction (hand-off).
    """

    id: str
    task_key: str
    name: str
    dynamic_key: str
    parameters: bytes
    payload_hash: bytes
    priority: int
    due: int
    expires: int | None
    retries: int
    retry_delay: tuple[float, ...]
    retry_jitter: float
    timeout: float | None
    tags: tuple[str, ...]
    headers: dict[str, str]
    idempotency_key: str | None
    holder: Holder | None = None
    surface: Surface | None = None

    @property
    def dispatched(self) -> bool:
        """Whether it waits to be handed out once it is there."""
        return self.surface is None or self.surface.dispatched

    @property
    def upstream(self) -> tuple[str, ...]:
        """The runs that must have ended before it is handed out."""
        return () if self.surface is None else self.surface.upstream


@dataclass(frozen=True, slots=True)
class NewFlowRun:
    """A flow run to be inserted. `parameters`, `context` and `job_variables` are JSON objects, as they came.

    Without a pool and a queue it waits in none.
    """

    id: str
    flow_id: str
    name: str
    initial: Proposed
    parameters: bytes = b"{}"
    context: bytes = b"{}"
    job_variables: bytes = b"{}"
    retries: int = 0
    retry_delay: tuple[float, ...] = (0.0,)
    retry_jitter: float = 0.0
    tags: tuple[str, ...] = ()
    labels: dict[str, Any] = field(default_factory=dict[str, Any])
    idempotency_key: str | None = None
    deployment_id: str | None = None
    parent_task_run_id: str | None = None
    work_pool_name: str | None = None
    work_queue_name: str | None = None
    flow_version: str | None = None
    infrastructure_pid: str | None = None


class Creation(Enum):
    """What became of a run that was to be inserted."""

    CREATED = auto()
    LEASED = auto()  # created, and leased to its holder
    EXISTED = auto()
    ID_CONFLICT = auto()  # the id is there with another payload
    IDEMPOTENCY_CONFLICT = auto()  # the idempotency key is there with another payload
    PARENT_MISSING = auto()  # the flow, flow run, deployment or work queue that it names is not there


@dataclass(frozen=True, slots=True)
class Created:
    """The outcome for one new run; `id` is the existing run's where there is one. `waits_for`: runs, to end first.

    `shown`: as it is shown, if that was asked for; one that was leased, as it was before, where its holder's
    worker reads that. `queued` is given with a new flow run that waits in a work queue, and `missing` says of one
    that was refused what is not there.
    """

    id: str
    how: Creation
    shown: RunRecord | None = None
    waits_for: tuple[str, ...] = ()
    queued: QueuedRecord | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class QueuedRecord:
    """A run that waits, with all that its order needs. Of a flow run, `task_key` is its work queue's key."""

    id: str
    task_key: str
    priority: int
    lane: int
    due: int


@dataclass(frozen=True, slots=True)
class PushedFlow:
    """What the worker of a flow run has to know besides. `work_queue` is `pool/queue`."""

    id: str
    name: str
    run_name: str
    deployment_id: str | None
    work_queue: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeasedRun:
    """A run just leased, with all that its worker needs. `shown`: as it was before, if the worker reads that.

    `flow` is given with flow runs.
    """

    id: str
    attempt: int
    task_key: str
    parameters: bytes
    timeout: float | None
    expires: int | None
    headers: dict[str, str]
    shown: RunRecord | None = None
    flow: PushedFlow | None = None


@dataclass(frozen=True, slots=True)
class FinalRun:
    """A run that has ended, with what its watchers want to know.

    `ended` is the time (microseconds UTC) where somebody else has said it: it may be some time ago.
    """

    id: str
    task_key: str
    type: StateType
    name: str
    message: str | None
    result: bytes | None = None
    error: bytes | None = None
    ended: int | None = field(default=None, compare=False)


class Refusal(Enum):
    """Why a run could not be leased."""

    TAKEN = auto()  # it is no longer SCHEDULED, or gone
    SESSION_MOVED = auto()  # the session is not this broker's at this epoch any more
    LATER = auto()  # enough for one time: it stays queued
    QUEUE_CLOSED = auto()  # its work queue is full or paused: it stays queued, until there is room
    POOL_CLOSED = auto()  # its work pool is
    HELD_BACK = auto()  # a queue with a filter that takes it is full: it waits for a slot of that one


class Verdict(Enum):
    """What a worker is told of a report."""

    RECORDED = auto()
    GONE = auto()  # recorded, in a way: the run was deleted
    LEASE_LOST = auto()
    CANCELLING = auto()  # started, but a cancel is on its way


@dataclass(frozen=True, slots=True)
class Reported:
    """The outcome of a report: the verdict, and where the run is now (one of the two, or neither)."""

    verdict: Verdict
    final: FinalRun | None = None
    queued: QueuedRecord | None = None


@dataclass(frozen=True, slots=True)
class Freed:
    """Runs whose lease ended without a report: queued again, or ended for good."""

    queued: tuple[QueuedRecord, ...] = ()
    final: tuple[FinalRun, ...] = ()


class Status(StrEnum):
    """What became of a state that somebody asked for, in the words of the Prefect server API."""

    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    WAIT = "WAIT"
    ABORT = "ABORT"


@dataclass(frozen=True, slots=True)
class Lease:
    """A session's right to a run."""

    session_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a committed write means for whoever holds, awaits or watches a run.

    - `unqueued`: it was SCHEDULED, and is not as it was: its window must forget it;
    - `queued`: it waits now; `final`: it has ended now, or is gone;
    - `to_stop`: the lease whose holder shall stop; `ended`: the lease that is over; `kept`: the one that goes on;
    - `frees_slot`: it took a slot of its work queue and its pool, and does so no more.

    `task_key` is the key of the window: of a flow run, that of its work queue (`queue_records.queue_key`).
    """

    run_id: str
    task_key: str
    unqueued: bool = False
    queued: QueuedRecord | None = None
    final: FinalRun | None = None
    ended: Lease | None = None
    to_stop: Lease | None = None
    kept: Lease | None = None
    frees_slot: bool = False


@dataclass(frozen=True, slots=True)
class TransitionOutcome:
    """The answer to a state that somebody asked for.

    `state` is the state that the run is in now; `wrote` says whether that was written now. `reason` is given
    unless it was accepted, `delay_seconds` with WAIT.
    """

    status: Status
    state: StateRecord
    wrote: bool
    reason: str | None = None
    delay_seconds: int | None = None
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """A run that a session holds."""

    id: str
    attempt: int
    task_key: str
    started: bool
    cancelling: bool = False


@dataclass(frozen=True, slots=True)
class Resumption:
    """A session taken up again: its new epoch and what became of each run, on either side.

    `silent`: of those held, the ones that a Prefect worker has acknowledged and said nothing of since.
    """

    epoch: int
    client_id: str
    held: tuple[HeldRecord, ...]
    reported: tuple[str, ...]
    lost: tuple[tuple[str, int], ...]
    freed: Freed
    served: Served = field(default_factory=Served)
    silent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as the database has it."""

    id: str
    epoch: int
    client_id: str
    dialect: str | None = None


@dataclass(frozen=True, slots=True)
class Refill:
    """The first dispatchable runs of a key, in order, and when its next one comes due (if one waits).

    `holds_back`: runs that are due were left out, because a queue with a filter that takes them is full.
    """

    queued: tuple[QueuedRecord, ...]
    next_due: int | None
    holds_back: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a broker found at its start."""

    queued: int
    leased: int
    sessions: tuple[SessionRecord, ...] = field(default=())
