"""States that somebody asks for: read, decide and write in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec

from runlane.protocol.states import FINAL, StateType

from ...orchestration.bookkeeping import Bookkeeping
from ...orchestration.decide import decide
from ...orchestration.decisions import (
    Abort,
    Accept,
    AskToStop,
    Decision,
    Dispatch,
    EndLease,
    Proposed,
    Reject,
    SetRetryType,
    Wait,
    Write,
    holds_result,
)
from ...orchestration.facts import Facts
from ...orchestration.facts import Lease as HeldBy
from ...orchestration.policies import choose_policy
from ...orchestration.rules import Policy
from ...orchestration.runs import CurrentState, Retries, Run
from ...orchestration.runs import RunKind as Kind
from ...orchestration.states import IN_PROCESS, LEASABLE, has_slot
from .. import queries as q
from ..queries import transitions as qt
from ..records import (
    CLIENT_WAITS,
    PREFECT,
    RETRY_LANE,
    SCHEDULED_LANE,
    WAITS_FOR_RUNS,
    Change,
    FinalRun,
    Lease,
    QueuedRecord,
    Status,
    TransitionOutcome,
)
from ..run_records import StateRecord
from ..states import state_details
from ..tables import TASK_RUN, RunKind
from ..transaction import Transaction
from .base import Operation
from .deciding import append_state, carry_out, read_facts
from .lease_rows import read_flow_lease
from .queues import may_start

_delays = msgspec.json.Decoder(tuple[float, ...]).decode


class RunRow(NamedTuple):
    """A run as a decision needs it: the columns of `queries.transitions.RunStatements.read`, in order."""

    id: str
    task_key: str | None
    priority: int | None
    lane: int | None
    due: int
    state_id: str
    state_type: str
    state_name: str
    state_timestamp: int
    session_id: str | None
    attempt: int
    failures: int
    run_count: int
    flow_run_run_count: int | None
    retries: int
    retry_delay: str
    retry_jitter: float
    tags: str
    expected_start_time: int | None
    start_time: int | None
    end_time: int | None
    total_run_time: int
    flow_run_id: str | None
    deployment_id: str | None
    infrastructure_pid: str | None
    withheld: int | None
    retry_type: str | None
    work_queue_id: str | None
    dialect: str | None
    state_message: str | None
    state_due: int | None
    state_details: str | None
    state_data: bytes | None
    has_result: int | None
    has_error: int | None

    def state(self) -> StateRecord:
        """The state that it is in."""
        details = state_details(self.state_details, self.state_due)
        return StateRecord(
            self.state_id, self.id, StateType(self.state_type), self.state_name, self.state_message,
            self.state_timestamp, self.state_due, self.attempt, details, self.state_data,
        )  # fmt: skip

    def run(self, kind: RunKind) -> Run:
        """What the rules need of it."""
        state = self.state()
        kept = state.type is StateType.COMPLETED and bool(self.has_result or holds_result(self.state_data))
        return Run(
            self.id,
            Kind.TASK if kind is TASK_RUN else Kind.FLOW,
            CurrentState(state.type, state.name, state.timestamp, state.details, kept),
            self._books(state.type),
            Retries(self.retries, _delays(self.retry_delay), self.retry_jitter),
            self.flow_run_id,
            self.deployment_id,
            self.infrastructure_pid,
        )

    def _books(self, type_: StateType) -> Bookkeeping:
        return Bookkeeping(
            run_count=self.run_count,
            failures=self.failures,
            flow_run_run_count=self.flow_run_run_count or 0,
            expected_start_time=self.expected_start_time,
            next_scheduled_start_time=self.due if type_ is StateType.SCHEDULED else None,
            start_time=self.start_time,
            end_time=self.end_time,
            total_run_time=self.total_run_time,
        )

    def lease(self) -> HeldBy | None:
        """By whom it is held. A lease that nobody has said anything of yet is its run's state, without details."""
        if self.session_id is None:
            return None
        if self.dialect != PREFECT:
            return HeldBy.RUNLANE
        silent = self.state_type == StateType.PENDING and self.state_details is None
        return HeldBy.PREFECT_SENT if silent else HeldBy.PREFECT

    @property
    def has_slot(self) -> bool:
        """Whether it takes a slot of its queue and its pool, if it is a flow run."""
        return has_slot(StateType(self.state_type), self.retry_type)

    @property
    def is_queued(self) -> bool:
        """Whether the broker would hand it out."""
        return self.state_type == StateType.SCHEDULED and self.withheld is None


@dataclass(frozen=True, slots=True)
class SetState(Operation["TransitionOutcome | None"]):
    """Ask for a state of a run; None: there is no such run. A refusal writes nothing.

    With `force` the rules are not asked, except those of a deferred task run. A `policy` is asked in place of the
    one that goes with the run and the state.
    """

    kind: RunKind
    run_id: str
    proposed: Proposed
    force: bool = False
    policy: Policy | None = None

    @property
    def size(self) -> int:
        """Bytes of data."""
        return len(self.proposed.data or b"")

    def execute(self, tx: Transaction) -> TransitionOutcome | None:
        """Decide on what stands in the database, until that is what the decision is written over."""
        while (row := read_row(tx, self.kind, self.run_id)) is not None:
            run = row.run(self.kind)
            policy = self.policy or choose_policy(run, self.proposed, force=self.force)
            decision = decide(run, self.proposed, self._facts(tx, row), policy, tx.now, tx.tick())
            decision = self._no_slot(tx, row, decision) or decision
            outcome = settle(tx, self.kind, row, decision, policy)
            if outcome is not None:
                return outcome
        return None

    def _no_slot(self, tx: Transaction, row: RunRow, decision: Decision) -> Abort | None:
        """Refuse to start a flow run whose queue or pool is full: so their limits hold whoever polled when.

        One that has a slot already needs no other. What is forced takes a slot, and is not refused.
        """
        if self.kind is TASK_RUN or self.force or row.has_slot or not isinstance(decision, Accept):
            return None
        starts = decision.write.state.type in (StateType.PENDING, StateType.RUNNING)
        reason = may_start(tx, row.id) if starts else None
        return None if reason is None else Abort(reason)

    def _facts(self, tx: Transaction, row: RunRow) -> Facts:
        if self.kind is not TASK_RUN:
            return Facts(lease=row.lease(), in_queue=row.work_queue_id is not None, random=tx.random())
        return read_facts(tx, row.id, self.proposed, flow_run_id=row.flow_run_id, tags=row.tags, lease=row.lease())


def statements(kind: RunKind) -> qt.RunStatements:
    """Return the statements on runs of a kind."""
    return qt.OF_TASK_RUNS if kind is TASK_RUN else qt.OF_FLOW_RUNS


def read_row(tx: Transaction, kind: RunKind, run_id: str) -> RunRow | None:
    """Return a run as a decision needs it."""
    tx.flush()
    row = tx.row(statements(kind).read, {"id": run_id})
    return None if row is None else RunRow._make(row)


def settle(
    tx: Transaction,
    kind: RunKind,
    row: RunRow,
    decision: Decision,
    policy: Policy,
    state_id: str | None = None,
) -> TransitionOutcome | None:
    """Write what was decided on a run as it was read; None: it has moved on since, and nothing was written.

    A state that somebody else has named keeps its `state_id`.
    """
    match decision:
        case Accept(write):
            return _written(tx, kind, row, write, policy, Status.ACCEPT, None, state_id)
        case Reject(reason, Write() as write):
            return _written(tx, kind, row, write, policy, Status.REJECT, reason, state_id)
        case Reject(reason):
            return TransitionOutcome(Status.REJECT, row.state(), wrote=False, reason=reason)
        case Wait(reason, seconds):
            return TransitionOutcome(Status.WAIT, row.state(), False, reason, seconds)
        case Abort(reason):
            return TransitionOutcome(Status.ABORT, row.state(), wrote=False, reason=reason)


def _written(
    tx: Transaction,
    kind: RunKind,
    row: RunRow,
    write: Write,
    policy: Policy,
    status: Status,
    reason: str | None,
    state_id: str | None = None,
) -> TransitionOutcome | None:
    state_id = state_id or tx.new_id(write.timestamp)
    columns = _columns(row, write, policy)
    known = {"id": row.id, "old_state_id": row.state_id, "state_id": state_id, "timestamp": write.timestamp}
    if tx.run(statements(kind).write, {**columns, **known}) == 0:
        return None
    state = append_state(tx, statements(kind), row.id, write, state_id=state_id, attempt=row.attempt)
    if kind is not TASK_RUN:
        change = _flow_change(tx, row, write)
        return TransitionOutcome(status, state, True, reason, None, change)
    carry_out(tx, row.id, state_id, write.timestamp, write.effects)
    result = write.state.result
    of_an_end_no_more = (row.has_result or row.has_error) and (row.state_type in FINAL or state.type in FINAL)
    if result is not None or of_an_end_no_more:
        tx.run(q.write_outcome, {"id": row.id, "result": result, "error": None})
    assert row.task_key is not None, "task runs have a key"
    change = _change(row, write, row.task_key, lane=columns["lane"], withheld=columns["withheld"])
    return TransitionOutcome(status, state, True, reason, None, change)


def _columns(row: RunRow, write: Write, policy: Policy) -> dict[str, object]:
    """Return what is written into the run's row, beside the identity of its state."""
    state, books = write.state, write.books
    scheduled = state.type is StateType.SCHEDULED
    dispatch = next((effect for effect in write.effects if isinstance(effect, Dispatch)), None)
    lane, withheld = row.lane, CLIENT_WAITS if scheduled else None
    if dispatch is not None:
        lane = RETRY_LANE if dispatch.retry_lane else SCHEDULED_LANE
        withheld = WAITS_FOR_RUNS if row.withheld == WAITS_FOR_RUNS else None
    elif scheduled and not policy.consequences:  # which only renames what waits
        withheld = row.withheld
    return {
        "state_type": state.type.value,
        "state_name": state.label,
        "session_id": None if any(isinstance(effect, EndLease) for effect in write.effects) else row.session_id,
        "lane": lane,
        "due": state.details.scheduled_time if scheduled else row.due,
        "failures": books.failures,
        "run_count": books.run_count,
        "flow_run_run_count": books.flow_run_run_count,
        "expected_start_time": books.expected_start_time,
        "start_time": books.start_time,
        "end_time": books.end_time,
        "total_run_time": books.total_run_time,
        "withheld": withheld,
        "retry_type": _retry_type(row, write),
    }


def _retry_type(row: RunRow, write: Write) -> str | None:
    """Return who starts a flow run next.

    Who executed one that has ended, was paused or was queued again does not: his process is through.
    """
    for effect in write.effects:
        if isinstance(effect, SetRetryType):
            return effect.retry_type
    still_waits = row.state_type == write.state.type == StateType.SCHEDULED
    return row.retry_type if still_waits or write.state.type in LEASABLE else None


def _flow_change(tx: Transaction, row: RunRow, write: Write) -> Change | None:
    """Return what the state of a flow run means for its work queue, if it is in one, and for its holder."""
    lease = read_flow_lease(tx, row.id)
    assert lease is not None, "it was written a statement ago"
    retry_type = _retry_type(row, write)
    withheld = 1 if retry_type == IN_PROCESS else None
    change = _change(row, write, lease.task_key, lane=SCHEDULED_LANE, withheld=withheld)
    return replace(change, frees_slot=row.has_slot and not has_slot(write.state.type, retry_type))


def _change(row: RunRow, write: Write, key: str, *, lane: object, withheld: object) -> Change:
    assert isinstance(lane, int), "what waits has a lane"
    state, lease = write.state, _lease(row)
    queued = None
    if state.type is StateType.SCHEDULED and withheld is None:
        queued = QueuedRecord(
            row.id, key, row.priority or 0, lane, state.details.scheduled_time or write.timestamp
        )
    final = None
    if state.type in FINAL:
        final = FinalRun(row.id, key, state.type, state.label, state.message, state.result, ended=write.timestamp)
    ends = any(isinstance(effect, EndLease) for effect in write.effects)
    return Change(
        row.id,
        key,
        unqueued=row.is_queued,
        queued=queued,
        final=final,
        ended=lease if ends else None,
        kept=None if ends else lease,
        to_stop=lease if any(isinstance(effect, EndLease | AskToStop) for effect in write.effects) else None,
    )


def _lease(row: RunRow) -> Lease | None:
    return None if row.session_id is None else Lease(row.session_id, row.attempt)
