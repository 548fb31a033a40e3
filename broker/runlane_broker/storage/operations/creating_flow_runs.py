"""Creating flow runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from runlane.protocol.states import StateType

from ...errors import Conflict, NotFound
from ...orchestration.decisions import Write
from ...orchestration.facts import Facts
from ...orchestration.runs import Retries, Run, RunKind
from ..queries import transitions as qt
from ..records import SCHEDULED_LANE, Created, Creation, NewFlowRun, QueuedRecord
from ..transaction import Transaction
from .base import Operation
from .creating import first_write, state_columns
from .deciding import append_state
from .lease_rows import read_flow_lease
from .queues import may_be_created, resolve_queue

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class CreateFlowRun(Operation[Created]):
    """Insert a flow run, unless its flow has one with this idempotency key.

    Raises `Conflict` for one that is to begin PENDING or RUNNING where its queue or pool is full.
    """

    run: NewFlowRun

    @property
    def size(self) -> int:
        """Bytes of parameters, context and job variables."""
        return len(self.run.parameters) + len(self.run.context) + len(self.run.job_variables)

    def execute(self, tx: Transaction) -> Created:
        """Look at what it refers to, decide on its first state, insert it."""
        run = self.run
        if run.idempotency_key is not None:
            key = {"flow_id": run.flow_id, "idempotency_key": run.idempotency_key}
            existing = tx.row(qt.read_idempotent_flow_run, key)
            if existing is not None:
                return Created(existing[0], Creation.EXISTED)
        try:
            queue = self._parents(tx)
        except NotFound as exc:
            return Created(run.id, Creation.PARENT_MISSING, missing=str(exc))
        retries = Retries(run.retries, run.retry_delay, run.retry_jitter)
        new = Run(run.id, RunKind.FLOW, None, retries=retries, deployment_id=run.deployment_id)
        write = first_write(tx, new, run.initial, Facts(random=tx.random()))
        state_id = tx.new_id(write.timestamp)
        row = _row(run, write, state_id, *queue)
        if write.state.type in (StateType.PENDING, StateType.RUNNING):
            # Before anything is written, so that a refusal costs nobody else anything.
            reason = may_be_created(tx, run.id, queue[0], row["tags"], run.deployment_id)
            if reason is not None:
                raise Conflict(reason)
        if tx.run(qt.insert_flow_run, row) == 0:
            return Created(run.id, Creation.ID_CONFLICT)
        payload = {"parameters": run.parameters, "context": run.context, "job_variables": run.job_variables}
        tx.later(qt.insert_flow_run_payload, {"flow_run_id": run.id, **payload})
        append_state(tx, qt.OF_FLOW_RUNS, run.id, write, state_id=state_id, attempt=0)
        return Created(run.id, Creation.CREATED, queued=self._queued(tx, queue[0]))

    def _queued(self, tx: Transaction, queue_id: str | None) -> QueuedRecord | None:
        lease = None if queue_id is None else read_flow_lease(tx, self.run.id)
        if lease is None or lease.state_type != StateType.SCHEDULED:
            return None
        return QueuedRecord(lease.id, lease.task_key, lease.priority, SCHEDULED_LANE, lease.due)

    def _parents(self, tx: Transaction) -> tuple[str | None, str | None]:
        """Return id and name of the queue to wait in, which is made if need be. Raises `NotFound`."""
        run = self.run
        if tx.row(qt.has_flow, {"id": run.flow_id}) is None:
            raise NotFound(f"There is no flow {run.flow_id!r}.")
        if run.deployment_id is not None and tx.row(qt.has_deployment, {"id": run.deployment_id}) is None:
            raise NotFound(f"There is no deployment {run.deployment_id!r}.")
        if run.work_pool_name is None and run.work_queue_name is None:
            return None, None
        return resolve_queue(tx, run.work_pool_name, run.work_queue_name)


def _row(
    run: NewFlowRun, write: Write, state_id: str, queue_id: str | None, queue_name: str | None
) -> dict[str, Any]:
    scheduled = write.state.details.scheduled_time if write.state.type is StateType.SCHEDULED else None
    labels = {"prefect.flow.id": run.flow_id, **run.labels}
    return {
        **state_columns(write),
        "id": run.id,
        "flow_id": run.flow_id,
        "name": run.name,
        "due": write.timestamp if scheduled is None else scheduled,
        "state_id": state_id,
        "state_timestamp": write.timestamp,
        "session_id": None,
        "attempt": 0,
        "failures": 0,
        "losses": 0,
        "retries": run.retries,
        "retry_delay": _encode(run.retry_delay).decode(),
        "retry_jitter": run.retry_jitter,
        "tags": _encode(run.tags).decode(),
        "labels": _encode(labels).decode(),
        "idempotency_key": run.idempotency_key,
        "created": write.timestamp,
        "updated": write.timestamp,
        "total_run_time": 0,
        "deployment_id": run.deployment_id,
        "parent_task_run_id": run.parent_task_run_id,
        "work_queue_id": queue_id,
        "work_queue_name": queue_name,
        "flow_version": run.flow_version,
        "infrastructure_pid": run.infrastructure_pid,
        "retry_type": None,
        "claimed_until": None,
    }
