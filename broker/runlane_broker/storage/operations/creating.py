"""Creating runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from runlane.protocol.states import FINAL, StateName, StateType

from ...orchestration.decide import decide
from ...orchestration.decisions import Accept, Dispatch, Proposed, Reject, Write
from ...orchestration.facts import Facts
from ...orchestration.policies import choose_policy
from ...orchestration.runs import Retries, Run, RunKind
from .. import queries as q
from ..queries import transitions as qt
from ..records import (
    CLIENT_WAITS,
    SCHEDULED_LANE,
    Change,
    Created,
    Creation,
    FinalRun,
    Holder,
    LeasedRun,
    NewRunRecord,
    RunRecord,
    Surface,
)
from ..transaction import Transaction, add_state
from .base import Operation
from .deciding import NO_TAGS, append_state, carry_out, read_facts, read_flow
from .holding import holds
from .leasing import lease_run
from .showing import shown_run
from .waiting import wait_for

_encode = msgspec.json.Encoder().encode
_labels = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class CreateRuns(Operation[tuple[Created, ...]]):
    """Insert runs, each with its outcome; those with a holder are leased in the same transaction.

    `shows`: return them as they are shown, too.
    """

    runs: tuple[NewRunRecord, ...]
    shows: bool = False

    @property
    def weight(self) -> int:
        """How many runs."""
        return len(self.runs)

    @property
    def size(self) -> int:
        """Bytes of parameters."""
        return sum(len(run.parameters) for run in self.runs)

    def execute(self, tx: Transaction) -> tuple[Created, ...]:
        """Insert the runs in their order."""
        standing: dict[Holder, bool] = {}
        return tuple(self._create(tx, run, standing) for run in self.runs)

    def _create(self, tx: Transaction, run: NewRunRecord, standing: dict[Holder, bool]) -> Created:
        if run.idempotency_key is not None:
            existing = tx.row(
                q.read_idempotent, {"task_key": run.task_key, "idempotency_key": run.idempotency_key}
            )
            if existing is not None:
                same = existing[1] == run.payload_hash
                return Created(existing[0], Creation.EXISTED if same else Creation.IDEMPOTENCY_CONFLICT)
        if run.dynamic_key != run.id:
            existing = of_that_name(tx, run)
            if existing is not None:
                return Created(existing, Creation.EXISTED)
        if run.surface is not None and not self._has_parent(tx, run.surface):
            return Created(run.id, Creation.PARENT_MISSING)
        holder = run.holder
        if holder is not None and holder not in standing:
            standing[holder] = holds(tx, holder)
        leased = holder is not None and standing[holder]
        shows = holder is not None and holder.dialect is not None
        if not self._insert(tx, run, holder if leased and not shows else None):
            row = tx.row(q.read_hash, {"id": run.id})
            # One that has a name of its client's own was not found by it: that of this id has another.
            same = row is not None and row[0] == run.payload_hash and run.dynamic_key == run.id
            return Created(run.id, Creation.EXISTED if same else Creation.ID_CONFLICT)
        if leased and holder is not None and shows:
            return _lease_as_shown(tx, run, holder)
        waits_for = wait_for(tx, run.id, run.upstream)
        how = Creation.LEASED if leased else Creation.CREATED
        return Created(run.id, how, self._shown(tx, run), waits_for=waits_for)

    def _shown(self, tx: Transaction, run: NewRunRecord) -> RunRecord | None:
        if not self.shows:
            return None
        tx.flush()
        return shown_run(tx, run.id)

    def _has_parent(self, tx: Transaction, surface: Surface) -> bool:
        return surface.flow_run_id is None or read_flow(tx, surface.flow_run_id) is not None

    def _insert(self, tx: Transaction, run: NewRunRecord, holder: Holder | None) -> bool:
        if run.surface is not None:
            return self._insert_decided(tx, run, run.surface, holder)
        timestamp = tx.tick()
        state_id = tx.new_id(timestamp)
        row = _new_row(run, timestamp, state_id)
        lease = None if holder is None else _lease_at_once(tx, row, holder)
        if tx.run(q.insert_run, row) == 0:
            return False
        tx.later(q.insert_payload, {"id": run.id, "parameters": run.parameters})
        add_state(
            tx,
            run.id,
            StateType.SCHEDULED,
            StateName.SCHEDULED.value,
            timestamp=timestamp,
            state_id=state_id,
            attempt=0,
            due=run.due,
        )
        if lease is not None:
            tx.later(q.TASK_LEASES.insert_state, lease)
        return True

    def _insert_decided(self, tx: Transaction, run: NewRunRecord, surface: Surface, holder: Holder | None) -> bool:
        write = _first_write(tx, run, surface)
        state_id = tx.new_id(write.timestamp)
        row = _new_row(run, write.timestamp, state_id) | _surface_columns(tx, run, surface, write)
        lease = None if holder is None else _lease_at_once(tx, row, holder)
        if tx.run(q.insert_run, row) == 0:
            return False
        tx.later(q.insert_payload, {"id": run.id, "parameters": run.parameters})
        append_state(tx, qt.OF_TASK_RUNS, run.id, write, state_id=state_id, attempt=0)
        if (result := write.state.result) is not None:
            tx.later(q.write_outcome, {"id": run.id, "result": result, "error": None})
        if lease is not None:
            tx.later(q.TASK_LEASES.insert_state, lease)
        carry_out(tx, run.id, state_id, write.timestamp, write.effects)
        return True


def _lease_as_shown(tx: Transaction, run: NewRunRecord, holder: Holder) -> Created:
    """Lease a run that has just been inserted to somebody who wants to read it as it was inserted."""
    tx.flush()
    lease = lease_run(tx, holder, run.id)
    if not isinstance(lease, LeasedRun):
        return Created(run.id, Creation.CREATED)
    return Created(run.id, Creation.LEASED, lease.shown)


def insert_reported(tx: Transaction, run: NewRunRecord, surface: Surface, write: Write, state_id: str) -> Change:
    """Insert a run that its client executes by itself, as its first report has it; the broker never starts it."""
    row = _new_row(run, write.timestamp, state_id) | _surface_columns(tx, run, surface, write)
    inserted = tx.run(q.insert_run, row)
    assert inserted, "it was looked for"
    tx.later(q.insert_payload, {"id": run.id, "parameters": run.parameters})
    append_state(tx, qt.OF_TASK_RUNS, run.id, write, state_id=state_id, attempt=0)
    state = write.state
    if state.result is not None:
        tx.flush()
        tx.run(q.write_outcome, {"id": run.id, "result": state.result, "error": None})
    if state.type not in FINAL:
        return Change(run.id, run.task_key)
    final = FinalRun(
        run.id, run.task_key, state.type, state.label, state.message, state.result, ended=write.timestamp
    )
    return Change(run.id, run.task_key, final=final)


def of_that_name(tx: Transaction, run: NewRunRecord) -> str | None:
    """Return the id of the run that has this run's task key and dynamic key, in its flow run."""
    name = {"task_key": run.task_key, "dynamic_key": run.dynamic_key}
    flow_run_id = None if run.surface is None else run.surface.flow_run_id
    if flow_run_id is None:
        row = tx.row(q.read_natural, name)
    else:
        row = tx.row(qt.read_natural_of_flow_run, {**name, "flow_run_id": flow_run_id})
    return None if row is None else row[0]


def _lease_at_once(tx: Transaction, row: dict[str, object], holder: Holder) -> dict[str, object]:
    """Have a new run be leased; return the state to append."""
    timestamp = tx.tick()
    lease_id = tx.new_id(timestamp)
    state = {"type": StateType.PENDING.value, "name": StateName.PENDING.value, "timestamp": timestamp}
    row.update(
        state_type=state["type"],
        state_name=state["name"],
        state_id=lease_id,
        state_timestamp=timestamp,
        session_id=holder.session_id,
        attempt=1,
    )
    return {
        **state,
        "id": lease_id,
        "run_id": row["id"],
        "message": None,
        "due": None,
        "attempt": 1,
        "session_id": holder.session_id,
        "details": None,
        "data": None,
    }


def first_write(tx: Transaction, run: Run, initial: Proposed, facts: Facts) -> Write:
    """Decide on the state that a run is created in. There is nothing that could be in its way."""
    decision = decide(run, initial, facts, choose_policy(run, initial, force=True), tx.now, tx.tick())
    match decision:
        case Accept(write) | Reject(_, Write() as write):
            tx.stamp(write.timestamp, 0)  # what follows in this transaction is later
            return write
        case _:
            raise AssertionError(f"a run cannot be created {initial.type}: {decision}")


def _first_write(tx: Transaction, run: NewRunRecord, surface: Surface) -> Write:
    retries = Retries(run.retries, run.retry_delay, run.retry_jitter)
    new = Run(run.id, RunKind.TASK, None, retries=retries, flow_run_id=surface.flow_run_id)
    facts = read_facts(tx, run.id, surface.initial, flow_run_id=surface.flow_run_id, tags=NO_TAGS)
    return first_write(tx, new, surface.initial, facts)


def _surface_columns(tx: Transaction, run: NewRunRecord, surface: Surface, write: Write) -> dict[str, object]:
    state, books = write.state, write.books
    dispatched = any(isinstance(effect, Dispatch) for effect in write.effects)
    labels = surface.labels
    if surface.flow_run_id is not None:
        labels = inherited_labels(tx, surface.flow_run_id) | labels
    return {
        **state_columns(write),
        "due": state.details.scheduled_time or run.due,
        "flow_run_run_count": books.flow_run_run_count or None,
        "flow_run_id": surface.flow_run_id,
        "task_version": surface.task_version,
        "cache_key": surface.cache_key,
        "cache_expiration": surface.cache_expiration,
        "labels": _encode(labels).decode() if labels else None,
        "task_inputs": _encode(surface.task_inputs).decode() if surface.task_inputs else None,
        "withheld": CLIENT_WAITS if state.type is StateType.SCHEDULED and not dispatched else None,
    }


def state_columns(write: Write) -> dict[str, object]:
    """Return what a new row says of its first state."""
    books = write.books
    return {
        "state_type": write.state.type.value,
        "state_name": write.state.label,
        "run_count": books.run_count,
        "expected_start_time": books.expected_start_time,
        "start_time": books.start_time,
        "end_time": books.end_time,
    }


def inherited_labels(tx: Transaction, flow_run_id: str) -> dict[str, Any]:
    """Return the labels that the task runs of a flow run have from it."""
    row = tx.row(qt.read_enclosing_flow, {"id": flow_run_id})
    labels = _labels(row[4]) if row is not None and row[4] else {}
    return {**labels, "prefect.flow-run.id": flow_run_id}


def _new_row(run: NewRunRecord, timestamp: int, state_id: str) -> dict[str, object]:
    return {
        "id": run.id,
        "task_key": run.task_key,
        "name": run.name,
        "dynamic_key": run.dynamic_key,
        "priority": run.priority,
        "lane": SCHEDULED_LANE,
        "due": run.due,
        "expires": run.expires,
        "state_id": state_id,
        "state_type": StateType.SCHEDULED.value,
        "state_name": StateName.SCHEDULED.value,
        "state_timestamp": timestamp,
        "session_id": None,
        "attempt": 0,
        "failures": 0,
        "losses": 0,
        "run_count": 0,
        "retries": run.retries,
        "retry_delay": _encode(run.retry_delay).decode(),
        "retry_jitter": run.retry_jitter,
        "timeout": run.timeout,
        "tags": _encode(run.tags).decode() if run.tags else "[]",
        "headers": _encode(run.headers).decode() if run.headers else "{}",
        "idempotency_key": run.idempotency_key,
        "payload_hash": run.payload_hash,
        "created": timestamp,
        "updated": timestamp,
        "expected_start_time": run.due,
        "start_time": None,
        "end_time": None,
        "total_run_time": 0,
        "flow_run_id": None,
        "flow_run_run_count": None,
        "task_version": None,
        "cache_key": None,
        "cache_expiration": None,
        "labels": None,
        "task_inputs": None,
        "withheld": None,
        "acknowledged": None,
    }
