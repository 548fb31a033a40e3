"""Creating runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from runlane.protocol.states import FINAL, StateName, StateType

from ...orchestration.decide import decide
from ...orchestration.decisions import Accept, Dispatch, Proposed, Reject, Write
from ...orchestration.details import StateDetails
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
    NewRunRecord,
    Surface,
)
from ..run_records import RunRecord, StateRecord
from ..transaction import Transaction, add_state
from .base import Operation
from .deciding import NO_TAGS, append_state, carry_out, read_facts, read_flow
from .holding import holds
from .showing import new_run
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
        surface = run.surface
        if surface is not None and surface.flow_run_id is not None:
            existing = of_that_name(tx, run) if run.dynamic_key != run.id else None
            if existing is not None:
                return Created(existing, Creation.EXISTED)
            if read_flow(tx, surface.flow_run_id) is None:
                return Created(run.id, Creation.PARENT_MISSING)
        holder = run.holder
        if holder is not None and holder not in standing:
            standing[holder] = holds(tx, holder)
        if holder is not None and not standing[holder]:
            holder = None
        shows = self.shows or (holder is not None and holder.dialect is not None)
        inserted = self._insert(tx, run, holder, shows=shows)
        if inserted is None:
            return _refused(tx, run)
        waits_for = wait_for(tx, run.id, run.upstream)
        how = Creation.CREATED if holder is None else Creation.LEASED
        return Created(run.id, how, inserted.shown, waits_for=waits_for)

    def _insert(
        self, tx: Transaction, run: NewRunRecord, holder: Holder | None, *, shows: bool
    ) -> _Inserted | None:
        """Insert a run, leased if there is a holder; None if its id or its name is there."""
        if run.surface is not None:
            return self._insert_decided(tx, run, run.surface, holder, shows=shows)
        timestamp = tx.tick()
        state_id = tx.new_id(timestamp)
        row = _new_row(run, timestamp, state_id)
        lease = None if holder is None else _lease_at_once(tx, run.id, holder)
        if tx.run(_insertion(run), row if lease is None else row | lease.columns) == 0:
            return None
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
            tx.later(q.TASK_LEASES.insert_state, lease.state)
        shown = None
        if shows:
            details = StateDetails(scheduled_time=run.due)
            name = StateName.SCHEDULED.value
            state = StateRecord(
                state_id, run.id, StateType.SCHEDULED, name, None, timestamp, run.due, 0, details, None
            )
            shown = new_run(row, state, run.parameters)
        return _Inserted(shown)

    def _insert_decided(
        self, tx: Transaction, run: NewRunRecord, surface: Surface, holder: Holder | None, *, shows: bool
    ) -> _Inserted | None:
        write = _first_write(tx, run, surface)
        state_id = tx.new_id(write.timestamp)
        row = _new_row(run, write.timestamp, state_id) | _surface_columns(tx, run, surface, write)
        lease = None if holder is None else _lease_at_once(tx, run.id, holder)
        if tx.run(_insertion(run), row if lease is None else row | lease.columns) == 0:
            return None
        tx.later(q.insert_payload, {"id": run.id, "parameters": run.parameters})
        state = append_state(tx, qt.OF_TASK_RUNS, run.id, write, state_id=state_id, attempt=0)
        if (result := write.state.result) is not None:
            tx.later(q.write_outcome, {"id": run.id, "result": result, "error": None})
        if lease is not None:
            tx.later(q.TASK_LEASES.insert_state, lease.state)
        carry_out(tx, run.id, state_id, write.timestamp, write.effects)
        return _Inserted(new_run(row, state, run.parameters, result) if shows else None)


@dataclass(frozen=True, slots=True)
class _Inserted:
    """A run that is there now; `shown` as it was before it was leased, if somebody reads that."""

    shown: RunRecord | None


@dataclass(frozen=True, slots=True)
class _FirstLease:
    """What a new run's row has otherwise when it is leased at once, and the state to append."""

    columns: dict[str, object]
    state: dict[str, object]


def _insertion(run: NewRunRecord) -> q.Query:
    """Return what inserts a run. The names within a flow run are looked through before."""
    in_flow_run = run.surface is not None and run.surface.flow_run_id is not None
    return q.insert_run if in_flow_run or run.dynamic_key == run.id else q.insert_named_run


def _refused(tx: Transaction, run: NewRunRecord) -> Created:
    """Say why a run could not be inserted: its name or its id is there."""
    if run.dynamic_key != run.id and (existing := of_that_name(tx, run)) is not None:
        return Created(existing, Creation.EXISTED)
    row = tx.row(q.read_hash, {"id": run.id})
    # One that has a name of its client's own was not found by it: that of this id has another.
    same = row is not None and row[0] == run.payload_hash and run.dynamic_key == run.id
    return Created(run.id, Creation.EXISTED if same else Creation.ID_CONFLICT)


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


def _lease_at_once(tx: Transaction, run_id: str, holder: Holder) -> _FirstLease:
    """Return what is different of a new run that is leased."""
    timestamp = tx.tick()
    state_id = tx.new_id(timestamp)
    state: dict[str, object] = {
        "id": state_id,
        "run_id": run_id,
        "type": StateType.PENDING.value,
        "name": StateName.PENDING.value,
        "message": None,
        "timestamp": timestamp,
        "due": None,
        "attempt": 1,
        "session_id": holder.session_id,
        "details": None,
        "data": None,
    }
    columns: dict[str, object] = {
        "state_type": state["type"],
        "state_name": state["name"],
        "state_id": state_id,
        "state_timestamp": timestamp,
        "session_id": holder.session_id,
        "attempt": 1,
        "updated": timestamp,
    }
    return _FirstLease(columns, state)


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
