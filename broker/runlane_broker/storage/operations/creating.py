"""Creating runs."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from runlane.protocol.states import StateName, StateType

from .. import queries as q
from ..records import SCHEDULED_LANE, Created, Creation, Holder, NewRunRecord
from ..transaction import Transaction, add_state
from .base import Operation

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class CreateRuns(Operation[tuple[Created, ...]]):
    """Insert runs, each with its outcome; those with a holder are leased in the same transaction."""

    runs: tuple[NewRunRecord, ...]

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
            existing = tx.row(q.read_natural, {"task_key": run.task_key, "dynamic_key": run.dynamic_key})
            if existing is not None:
                return Created(existing[0], Creation.EXISTED)
        holder = run.holder
        if holder is not None and holder not in standing:
            standing[holder] = holds(tx, holder)
        leased = holder is not None and standing[holder]
        if not self._insert(tx, run, holder if leased else None):
            row = tx.row(q.read_hash, {"id": run.id})
            same = row is not None and row[0] == run.payload_hash
            return Created(run.id, Creation.EXISTED if same else Creation.ID_CONFLICT)
        return Created(run.id, Creation.LEASED if leased else Creation.CREATED)

    def _insert(self, tx: Transaction, run: NewRunRecord, holder: Holder | None) -> bool:
        timestamp = tx.tick()
        state_id = tx.new_id(timestamp)
        row = _new_row(run, timestamp, state_id)
        leased_at, lease_id = 0, ""
        if holder is not None:
            leased_at = tx.tick()
            lease_id = tx.new_id(leased_at)
            row.update(
                state_type=StateType.PENDING.value,
                state_name=StateName.PENDING.value,
                state_id=lease_id,
                state_timestamp=leased_at,
                session_id=holder.session_id,
                attempt=1,
            )
        if tx.run(q.insert_run, row) == 0:
            return False
        tx.later(q.insert_payload, {"id": run.id, "parameters": run.parameters})
        add_state(
            tx,
            run.id,
            run.state_type,
            run.state_name or StateName.SCHEDULED.value,
            timestamp=timestamp,
            state_id=state_id,
            attempt=0,
            message=run.state_message,
            due=run.due if run.state_type is StateType.SCHEDULED else None,
        )
        if holder is not None:
            add_state(
                tx,
                run.id,
                StateType.PENDING,
                StateName.PENDING.value,
                timestamp=leased_at,
                state_id=lease_id,
                attempt=1,
                session_id=holder.session_id,
            )
        return True


def holds(tx: Transaction, holder: Holder) -> bool:
    """Say whether the session is still this broker's at this epoch."""
    params = {"session_id": holder.session_id, "broker_id": holder.broker_id, "epoch": holder.epoch}
    return tx.row(q.holds_session, params) is not None


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
        "state_type": run.state_type.value,
        "state_name": run.state_name or StateName.SCHEDULED.value,
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
    }
