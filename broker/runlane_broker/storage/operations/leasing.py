"""Leasing queued runs, and the ways a lease ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

from runlane.protocol.states import FINAL, StateName, StateType

from ...orchestration.decisions import Proposed
from ...orchestration.leases import decide_end_of_lease, decide_report
from ...orchestration.task_rules import NOT_READY
from .. import queries as q
from ..queries import taking as qk
from ..records import (
    FinalRun,
    Freed,
    Holder,
    LeasedRun,
    QueuedRecord,
    Refusal,
    Reported,
    Verdict,
)
from ..states import details_text, state_details
from ..tables import TASK_RUN, RunKind
from ..transaction import Transaction, add_state
from .base import Operation
from .batches import MAX_BATCH, lease_batch
from .holding import holds
from .lease_rows import LeaseRow, find_lease, has_reported
from .pushing import read_pushed, refuse_push
from .showing import shown_run

_headers = msgspec.json.Decoder(dict[str, str]).decode
_delays = msgspec.json.Decoder(tuple[float, ...]).decode

#: Parameters that are leased to one session at a time, in bytes. The rest waits until these have been taken:
#: what is in flight to a worker must not depend on how many slots it has.
MAX_LEASE_BYTES: Final = 1024 * 1024

EXPIRED_MESSAGE = "The run was not started before it expired."


@dataclass(frozen=True, slots=True)
class LeaseRuns(Operation[tuple[LeasedRun | FinalRun | Refusal, ...]]):
    """Lease runs of one kind to a session; the outcome of each, in order."""

    holder: Holder
    run_ids: tuple[str, ...]
    kind: RunKind = TASK_RUN

    @property
    def weight(self) -> int:
        """How many runs."""
        return len(self.run_ids)

    def execute(self, tx: Transaction) -> tuple[LeasedRun | FinalRun | Refusal, ...]:
        """Lease what is still there. An expired run ends instead."""
        if not holds(tx, self.holder):
            return tuple(Refusal.SESSION_MOVED for _ in self.run_ids)
        if self.kind is TASK_RUN and len(self.run_ids) > 1:
            return tuple(self._lease_together(tx))
        if self.holder.dialect is not None:
            tx.flush()  # they are read as they are shown
        return tuple(self._lease_each(tx))

    def _lease_each(self, tx: Transaction) -> Iterator[LeasedRun | FinalRun | Refusal]:
        size = 0
        held_back = False
        for run_id in self.run_ids:
            if held_back or size >= MAX_LEASE_BYTES:
                yield Refusal.LATER
                continue
            outcome = lease_run(tx, self.holder, run_id, self.kind)
            size += len(outcome.parameters) if isinstance(outcome, LeasedRun) else 0
            # The rest may be, too, and to find that out of each takes long: a read leaves them all out at once.
            held_back = outcome is Refusal.HELD_BACK
            yield outcome

    def _lease_together(self, tx: Transaction) -> Iterator[LeasedRun | FinalRun | Refusal]:
        """Do the same with fewer statements."""
        tx.flush()
        waiting, size = self.run_ids, 0
        while waiting and size < MAX_LEASE_BYTES:
            count, leased = lease_batch(tx, self.holder, waiting[:MAX_BATCH], MAX_LEASE_BYTES - size)
            size += sum(len(run.parameters) for run in leased.values())
            for run_id in waiting[:count]:
                yield leased.pop(run_id, None) or expire(tx, run_id) or Refusal.TAKEN
            waiting = waiting[count:]
        yield from (Refusal.LATER for _ in waiting)


def lease_run(
    tx: Transaction, holder: Holder, run_id: str, kind: RunKind = TASK_RUN
) -> LeasedRun | FinalRun | Refusal:
    """Lease a run that waits to a session that holds. An expired one ends instead."""
    task = kind is TASK_RUN
    statements = q.TASK_LEASES if task else q.FLOW_LEASES
    if not task and (refusal := refuse_push(tx, run_id)) is not None:
        return refusal
    timestamp = tx.tick()
    state_id = tx.new_id(timestamp)
    session_id = holder.session_id
    shown = shown_run(tx, run_id) if holder.dialect is not None else None
    row = tx.row(
        statements.lease,
        {
            "id": run_id,
            "now": tx.now,
            "state_id": state_id,
            "timestamp": timestamp,
            "session_id": session_id,
        },
    )
    if row is None:
        return (expire(tx, run_id) if task else None) or Refusal.TAKEN
    attempt = row[0]
    add_state(
        tx,
        run_id,
        StateType.PENDING,
        StateName.PENDING.value,
        timestamp=timestamp,
        state_id=state_id,
        attempt=attempt,
        session_id=session_id,
        statements=statements,
    )
    if not task:
        return read_pushed(tx, run_id, attempt)
    _, task_key, timeout, expires, headers = row
    parameters = _parameters(tx, run_id) if shown is None else shown.parameters
    return LeasedRun(run_id, attempt, task_key, parameters, timeout, expires, _headers(headers), shown)


def _parameters(tx: Transaction, run_id: str) -> bytes:
    payload = tx.row(q.read_parameters, {"id": run_id})
    assert payload is not None, "a run has its payload from its insert on"
    return payload[0]


def expire(tx: Transaction, run_id: str) -> FinalRun | None:
    """End a run that waits and has expired; None if it does not, or has not."""
    timestamp = tx.tick()
    state_id = tx.new_id(timestamp)
    params = {"id": run_id, "now": tx.now, "state_id": state_id, "timestamp": timestamp}
    row = tx.row(q.expire_run, params)
    if row is None:
        return None
    task_key, attempt = row
    name = StateName.EXPIRED.value
    add_state(
        tx,
        run_id,
        StateType.CANCELLED,
        name,
        timestamp=timestamp,
        state_id=state_id,
        attempt=attempt,
        message=EXPIRED_MESSAGE,
    )
    return FinalRun(run_id, task_key, StateType.CANCELLED, name, EXPIRED_MESSAGE)


@dataclass(frozen=True, slots=True)
class StartRun(Operation[Verdict]):
    """A worker has begun a run. `at` is when it said so (time of day, microseconds)."""

    session_id: str
    run_id: str
    attempt: int
    at: int

    @property
    def urgent(self) -> bool:
        """Nobody is told of it, so it need not have a commit of its own."""
        return False

    def execute(self, tx: Transaction) -> Verdict:
        """RECORDED also where it stands already; CANCELLING where a cancel is on its way."""
        state_id = tx.new_id(self.at)
        lease = {"id": self.run_id, "attempt": self.attempt, "session_id": self.session_id}
        for statements in q.ALL_LEASES:
            row = tx.row(statements.start, lease | {"state_id": state_id, "at": self.at})
            if row is not None:
                break
        else:
            return self._why_not(tx)
        name, timestamp = row
        add_state(
            tx,
            self.run_id,
            StateType.RUNNING,
            name,
            timestamp=tx.stamp(timestamp, 0),
            state_id=state_id,
            attempt=self.attempt,
            session_id=self.session_id,
            statements=statements,
        )
        return Verdict.RECORDED

    def _why_not(self, tx: Transaction) -> Verdict:
        row, _ = find_lease(tx, self.run_id, self.attempt, self.session_id)
        if row is None:
            reported = has_reported(tx, self.run_id, self.attempt, self.session_id)
            return Verdict.RECORDED if reported else Verdict.LEASE_LOST
        return Verdict.CANCELLING if row.state_type == StateType.CANCELLING else Verdict.RECORDED


@dataclass(frozen=True, slots=True)
class FinishRun(Operation[Reported]):
    """A worker reports the end of a run it holds. `at` is when it said so (time of day, microseconds)."""

    session_id: str
    run_id: str
    attempt: int
    at: int
    proposed: Proposed
    result: bytes | None = None
    error: bytes | None = None
    retriable: bool | None = None
    retry_after: float | None = None

    @property
    def size(self) -> int:
        """Bytes of result and error."""
        return len(self.result or b"") + len(self.error or b"")

    def execute(self, tx: Transaction) -> Reported:
        """Write the decision under the fence. The same report twice has the same verdict and one history row."""
        row, is_there = find_lease(tx, self.run_id, self.attempt, self.session_id)
        if not is_there:
            return Reported(Verdict.GONE)
        if row is None:
            reported = has_reported(tx, self.run_id, self.attempt, self.session_id)
            return Reported(Verdict.RECORDED if reported else Verdict.LEASE_LOST)
        end = decide_report(
            row.view(),
            self.proposed,
            self.at,
            tx.random(),
            retriable=self.retriable,
            retry_after=self.retry_after,
        )
        if end is None:
            return Reported(Verdict.LEASE_LOST)
        failed = self.proposed.type is StateType.FAILED
        ended = tx.stamp(self.at, row.state_timestamp)
        reporter = self.session_id
        task = row.statements is q.TASK_LEASES
        data = None if task else self.result or self.error  # of a flow run it is its state's
        if not end_lease(tx, row, end.state, ended, due=end.due, failed=failed, reporter=reporter, data=data):
            return Reported(Verdict.LEASE_LOST)
        if task and (self.result is not None or self.error is not None or row.failures):  # which left an error
            tx.run(q.write_outcome, {"id": row.id, "result": self.result, "error": self.error})
        return self._reported(row, end.state, end.due)

    def _reported(self, row: LeaseRow, state: Proposed, due: int | None) -> Reported:
        if due is not None:
            queued = QueuedRecord(row.id, row.task_key, row.priority, row.retry_lane, due)
            return Reported(Verdict.RECORDED, queued=queued)
        label, message = state.label, state.message
        final = FinalRun(row.id, row.task_key, state.type, label, message, self.result, self.error, self.at)
        return Reported(Verdict.RECORDED, final=final)


@dataclass(frozen=True, slots=True)
class Release:
    """A run given back: `delay` seconds from now it may run again."""

    run_id: str
    attempt: int
    reason: str
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class ReleaseRuns(Operation[Freed]):
    """A session gives runs back. Leases that are not its own any more are left alone."""

    session_id: str
    releases: tuple[Release, ...]
    lost: bool = False
    max_losses: int = 5

    @property
    def weight(self) -> int:
        """How many runs."""
        return len(self.releases)

    def execute(self, tx: Transaction) -> Freed:
        """Free each run that is still held as given."""
        freeing = Freeing(lost=self.lost, max_losses=self.max_losses)
        for release in self.releases:
            row, _ = find_lease(tx, release.run_id, release.attempt, self.session_id)
            if row is not None:
                freeing.free(tx, row, release.reason, release.delay)
        return freeing.freed()


class Freeing:
    """Ends leases without a report and collects what became of the runs."""

    def __init__(self, *, lost: bool, max_losses: int) -> None:
        self._lost = lost
        self._max_losses = max_losses
        self._queued: list[QueuedRecord] = []
        self._final: list[FinalRun] = []

    def free(self, tx: Transaction, row: LeaseRow, reason: str, delay: float | None = None) -> None:
        """Queue the run again, at the head of its priority; or park or cancel it, as the rules say."""
        # Its worker was done with such a run, and well, before the session ended.
        lost = self._lost and row.state_name != NOT_READY
        state = decide_end_of_lease(row.view(), reason, lost=lost, max_losses=self._max_losses)
        due = row.due if delay is None else tx.now + round(delay * 1_000_000)
        queued = state.type is StateType.SCHEDULED
        if not end_lease(tx, row, state, tx.tick(), due=due if queued else None, lost=lost):
            return
        if queued:
            self._queued.append(QueuedRecord(row.id, row.task_key, row.priority, row.retry_lane, due))
        else:
            self._final.append(FinalRun(row.id, row.task_key, state.type, state.label, state.message))

    def freed(self) -> Freed:
        """Return what was freed."""
        return Freed(tuple(self._queued), tuple(self._final))


def end_lease(
    tx: Transaction,
    row: LeaseRow,
    state: Proposed,
    timestamp: int,
    *,
    due: int | None,
    failed: bool = False,
    lost: bool = False,
    reporter: str | None = None,
    data: bytes | None = None,
) -> bool:
    """Write the state that ends a lease and append it to the history; False if the fence held it back.

    `due` is given where the run is queued again. `reporter` is the session, where its own report ends the lease.
    `data` is what a flow run has come to.
    """
    statements = row.statements
    task = statements is q.TASK_LEASES
    state_id = tx.new_id(timestamp)
    ran = timestamp - row.state_timestamp if row.state_type == StateType.RUNNING else 0
    changed = tx.run(
        statements.end,
        {
            "id": row.id,
            "attempt": row.attempt,
            "session_id": row.session_id,
            "state_type": state.type.value,
            "state_name": state.label,
            "state_id": state_id,
            "timestamp": timestamp,
            "lane": row.retry_lane,
            "retry_type": "reschedule" if state.name == StateName.AWAITING_RETRY else None,
            "due": row.due if due is None else due,
            "failures": row.failures + failed,
            "losses": row.losses + lost,
            "end_time": timestamp if state.type in FINAL else None,
            "total_run_time": row.total_run_time + max(ran, 0),
        },
    )
    if changed == 0:
        return False
    if task and row.tags != "[]":
        tx.run(q.free_slots, {"task_run_id": row.id})
    add_state(
        tx,
        row.id,
        state.type,
        state.label,
        timestamp=timestamp,
        state_id=state_id,
        attempt=row.attempt,
        message=state.message,
        due=due,
        session_id=reporter,
        details=_scheduled_details(tx, row.id, due) if task and due is not None else None,
        data=data,
        statements=statements,
    )
    return True


def _scheduled_details(tx: Transaction, run_id: str, due: int) -> str | None:
    """Return what the run's last SCHEDULED state said, for `due`: a worker may find its parameters by it."""
    found = tx.row(qk.read_scheduled_details, {"id": run_id, "limit": 1})
    return None if found is None else details_text(replace(state_details(found[0], due), scheduled_time=due))
