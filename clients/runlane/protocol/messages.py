"""The frames of `runlane.v1`: one immutable struct per frame, told apart by `type`.

Names say the sender's intent; where one type is sent both ways in different shapes, the prefix says who gets
it (`Finished` is what a worker reports, `RunFinished` what a watcher hears). Unknown fields are ignored.
Ids are UUIDs in canonical form, times are RFC 3339 texts with an offset, durations are seconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Raw, Struct

from .ids import ID_PATTERN
from .limits import (
    MAX_IDS,
    MAX_IDS_PER_CANCEL,
    MAX_KEYS,
    MAX_LIMIT,
    MAX_PRIORITY,
    MAX_QUEUES,
    MAX_RUNS_PER_SUBMIT,
)
from .payloads import ABSENT
from .states import StateType

#: The name of the subprotocol, offered and accepted in the upgrade.
SUBPROTOCOL = "runlane.v1"

Id: TypeAlias = Annotated[str, Meta(pattern=ID_PATTERN)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
#: The stable name of a task: letters, digits and `. _ : < > / -`, at most 200.
TaskKey: TypeAlias = Annotated[str, Meta(pattern=r"^[\w.:<>/-]{1,200}\Z")]
#: A work queue: the name of its pool, a slash, and its own. Neither has a slash in it.
QueueName: TypeAlias = Annotated[str, Meta(pattern=r"^[^/]{1,200}/[^/]{1,200}\Z")]
Attempt: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
#: At most ten years: what is longer is a mistake, and would overflow elsewhere.
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=315_360_000)]
Message: TypeAlias = Annotated[str, Meta(max_length=10_000)]
Limit: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_LIMIT)]
Priority: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_PRIORITY)]
Time: TypeAlias = Annotated[datetime, Meta(tz=True)]
Ref: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)] | Annotated[str, Meta(max_length=64)]
Headers: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=200)], Annotated[str, Meta(max_length=4096)]], Meta(max_length=32)
]
FinalType: TypeAlias = Literal["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]


# (`frozen` is inherited; each class says so again because type checkers don't know that it is.)
class Frame(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """Base of all frames; a subclass's `tag` is its `type` on the wire."""


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of what stands inside frames."""


# --- Both sockets ------------------------------------------------------------------------------------------


class Auth(Frame, frozen=True, tag="auth"):
    """First frame of a client. `token` may be absent where the broker has none configured."""

    token: Annotated[str, Meta(max_length=1024)] | None = None


class AuthSuccess(Frame, frozen=True, tag="auth_success"):
    """The broker's answer: who it is, and the limits and timers that hold on this connection."""

    protocol: str
    broker: str
    beat_seconds: float
    idle_beat_seconds: float
    resume_seconds: float
    max_message_bytes: int
    max_payload_bytes: int


class Beat(Frame, frozen=True, tag="beat"):
    """Sign of life; the broker sends the same `n` back."""

    n: Count = 0


class Error(Frame, frozen=True, tag="error"):
    """A typed refusal of one frame. `ref` is the refused frame's, where it has one."""

    code: str
    message: str
    frame: str | None = None
    field: str | None = None
    ref: int | str | None = None


class Draining(Frame, frozen=True, tag="draining"):
    """The broker goes down: finish, report, and reconnect after this long."""

    retry_after_seconds: float


# --- Worker socket, up -------------------------------------------------------------------------------------


class HeldRun(Part, frozen=True):
    """A run that a session holds, with the attempt of its lease."""

    id: Id
    attempt: Attempt


class Subscribe(Frame, frozen=True, tag="subscribe"):
    """Asks for runs of these task keys and work queues (at least one of the two), at most `limit` at once.

    With `session` and `resume_token` it takes up an earlier session; `running` then lists every run still
    held: unstarted, running, or finished without a verdict.
    """

    client_id: Name
    limit: Limit
    keys: Annotated[tuple[TaskKey, ...], Meta(max_length=MAX_KEYS)] = ()
    queues: Annotated[tuple[QueueName, ...], Meta(max_length=MAX_QUEUES)] = ()
    session: Id | None = None
    resume_token: Annotated[str, Meta(max_length=100)] | None = None
    running: Annotated[tuple[HeldRun, ...], Meta(max_length=2 * MAX_LIMIT)] = ()

    def __post_init__(self) -> None:
        if not self.keys and not self.queues:
            raise ValueError("Expected `keys` or `queues`, neither is given - at `$.keys`")


class Started(Frame, frozen=True, tag="started"):
    """A slot is taken and the parameters are parsed: the run is RUNNING."""

    id: Id
    attempt: Attempt
    at: Time | None = None


class Progress(Frame, frozen=True, tag="progress"):
    """How far a running task is; the latest is kept and pushed to watchers."""

    id: Id
    attempt: Attempt
    current: float
    total: float | None = None
    message: Annotated[str, Meta(max_length=1000)] | None = None


class FinalState(Part, frozen=True):
    """How a run ended. `name` defaults to the type's own (`Completed`)."""

    type: FinalType
    name: Name | None = None
    message: Message | None = None


class Finished(Frame, frozen=True, tag="finished"):
    """The task ended. Frees its slot on receipt; sent again until a verdict arrives.

    `retriable: false` forbids a retry, `retry_after` replaces the run's own retry delay.
    """

    id: Id
    attempt: Attempt
    state: FinalState
    result: Raw = ABSENT
    error: Raw = ABSENT
    retriable: bool | None = None
    retry_after: Seconds | None = None


class ReleasedRun(Part, frozen=True):
    """A run that is given back. `delay` postpones it by that many seconds, and has a verdict as a report has."""

    id: Id
    attempt: Attempt
    delay: Seconds | None = None
    reason: Annotated[str, Meta(max_length=200)] = ""


class Release(Frame, frozen=True, tag="release"):
    """Gives runs back: unstarted, drained or snoozed. Uses up no retry.

    Runs with a `delay` are answered by `recorded` or `lease_lost`; the others by nothing.
    """

    runs: Annotated[tuple[ReleasedRun, ...], Meta(max_length=2 * MAX_LIMIT)]


class SetLimit(Frame, frozen=True, tag="limit"):
    """Slots changed. 0 pauses; lowering takes nothing away."""

    limit: Limit


class Quit(Frame, frozen=True, tag="quit"):
    """Clean end of the session: all it holds is given back at once."""


# --- Worker socket, down -----------------------------------------------------------------------------------


class Subscribed(Frame, frozen=True, tag="subscribed"):
    """The session is open. The worker cancels what is `lost`; what is `resumed` is still its own."""

    session: str
    resume_token: str
    resumed: tuple[str, ...] = ()
    lost: tuple[HeldRun, ...] = ()


class PushedRun(Part, frozen=True):
    """A leased run. `parameters` is a JSON object by parameter name.

    A task run has a `task_key`; a flow run has a flow in its place, and came out of a `work_queue`.
    """

    id: str
    attempt: int
    parameters: Raw
    task_key: str = ""
    kind: Literal["task", "flow"] = "task"
    timeout: float | None = None
    expires_in: float | None = None
    headers: dict[str, str] = {}  # msgspec copies it
    name: str = ""
    flow_id: str | None = None
    flow_name: str = ""
    deployment_id: str | None = None
    work_queue: str | None = None
    tags: tuple[str, ...] = ()


class Runs(Frame, frozen=True, tag="runs"):
    """Leased runs: start them now. Never more in flight than `limit`."""

    runs: tuple[PushedRun, ...]


class RecordedRun(Part, frozen=True):
    """A verdict; `gone` says that the run's row was deleted meanwhile."""

    id: str
    attempt: int
    gone: bool = False


class Recorded(Frame, frozen=True, tag="recorded"):
    """These reports are committed: forget them."""

    runs: tuple[RecordedRun, ...]


class LeaseLost(Frame, frozen=True, tag="lease_lost"):
    """This lease is over and its report counts no more: cancel the task and forget it."""

    id: str
    attempt: int


class CancelRun(Frame, frozen=True, tag="cancel"):
    """Stop this run; answer with `finished` CANCELLED."""

    id: str
    attempt: int
    grace_seconds: float


# --- Submission socket, up ---------------------------------------------------------------------------------


class NewRun(Part, frozen=True):
    """A run to be created. The client mints `id`: submitting it again is safe."""

    id: Id
    task_key: TaskKey
    parameters: Raw = Raw(b"{}")
    name: Name | None = None
    idempotency_key: Name | None = None
    priority: Priority = 0
    scheduled_time: Time | None = None
    expires: Time | None = None
    tags: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    retries: Annotated[int, Meta(ge=0, le=1000)] = 0
    retry_delay: Seconds | Annotated[tuple[Seconds, ...], Meta(max_length=1000)] = 0.0
    retry_jitter: Annotated[float, Meta(ge=0, le=10)] = 0.0
    timeout: Annotated[float, Meta(gt=0, le=315_360_000)] | None = None
    headers: Headers = {}  # msgspec copies it


class Submit(Frame, frozen=True, tag="submit"):
    """Creates runs, in one transaction. `submitted` answers with the same `ref`, in the same order.

    `runs` stay raw here so that one bad item is refused alone: see `decode_new_run`.
    """

    ref: Ref
    runs: Annotated[tuple[Raw, ...], Meta(max_length=MAX_RUNS_PER_SUBMIT)]


class Watch(Frame, frozen=True, tag="watch"):
    """Asks to hear of these runs; what is already final is answered at once."""

    ids: Annotated[tuple[Id, ...], Meta(max_length=MAX_IDS)]


class Unwatch(Frame, frozen=True, tag="unwatch"):
    """Stop telling of these runs."""

    ids: Annotated[tuple[Id, ...], Meta(max_length=MAX_IDS)]


class Cancel(Frame, frozen=True, tag="cancel"):
    """Asks that these runs be cancelled."""

    ref: Ref
    ids: Annotated[tuple[Id, ...], Meta(max_length=MAX_IDS_PER_CANCEL)]


# --- Submission socket, down -------------------------------------------------------------------------------


class ItemError(Part, frozen=True):
    """Why one item of a frame was refused."""

    code: str
    message: str
    field: str | None = None


class SubmittedRun(Part, frozen=True):
    """`created: false`: this run, or one with its idempotency key, is there already; `id` is that one's."""

    id: str
    created: bool
    error: ItemError | None = None


class Submitted(Frame, frozen=True, tag="submitted"):
    """Sent after the commit, one item per run in the order of the `submit` frame."""

    ref: int | str
    runs: tuple[SubmittedRun, ...]


class RunState(Part, frozen=True):
    """A state as watchers see it."""

    type: StateType
    name: str
    message: str | None = None


class RunFinished(Frame, frozen=True, tag="finished"):
    """A watched run has ended."""

    id: str
    state: RunState
    result: Raw = ABSENT
    error: Raw = ABSENT


class RunProgress(Frame, frozen=True, tag="progress"):
    """A watched run's latest progress."""

    id: str
    current: float
    total: float | None = None
    message: str | None = None


class CancelledRun(Part, frozen=True):
    """What became of one run of a `cancel` frame: its state now, or why not."""

    id: str
    state: RunState | None = None
    error: ItemError | None = None


class Cancelled(Frame, frozen=True, tag="cancelled"):
    """Answers `cancel`, after the commit."""

    ref: int | str
    runs: tuple[CancelledRun, ...]


class Busy(Frame, frozen=True, tag="busy"):
    """Too much is waiting: nothing of this frame was taken, send it again after this long."""

    ref: int | str
    retry_after_seconds: float


WorkerUp: TypeAlias = Auth | Subscribe | Beat | Started | Progress | Finished | Release | SetLimit | Quit
WorkerDown: TypeAlias = (
    AuthSuccess | Subscribed | Beat | Runs | Recorded | LeaseLost | CancelRun | Draining | Error
)
SubmissionUp: TypeAlias = Auth | Submit | Watch | Unwatch | Cancel | Beat | Quit
SubmissionDown: TypeAlias = (
    AuthSuccess | Submitted | RunFinished | RunProgress | Cancelled | Busy | Beat | Draining | Error
)
