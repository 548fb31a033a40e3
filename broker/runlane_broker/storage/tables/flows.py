"""Flows, their deployments, their runs and the runs' states."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from .base import HELD, metadata, one_of

#: What a flow run is a run of.
flow: Final = Table(
    "flow",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

Index("uq_flow_name", flow.c.name, unique=True)

#: A flow together with how and where its runs are to be executed.
deployment: Final = Table(
    "deployment",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("flow_id", String(36), ForeignKey("flow.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text),
    Column("description", Text),
    Column("entrypoint", Text),
    Column("path", Text),
    Column("tags", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("parameters", LargeBinary, nullable=False),
    Column("parameter_openapi_schema", LargeBinary, nullable=False),
    Column("job_variables", LargeBinary, nullable=False),
    Column("enforce_parameter_schema", Boolean(create_constraint=False), nullable=False),
    Column("paused", Boolean(create_constraint=False), nullable=False),
    Column("concurrency_limit", BigInteger),
    Column("work_queue_name", Text),
    Column("work_queue_id", String(36), ForeignKey("work_queue.id", ondelete="SET NULL")),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    CheckConstraint("concurrency_limit IS NULL OR concurrency_limit >= 0", name="concurrency_limit"),
    sqlite_with_rowid=False,
)

Index("uq_deployment_flow_name", deployment.c.flow_id, deployment.c.name, unique=True)
Index("ix_deployment_work_queue", deployment.c.work_queue_id)

#: The hot row of a flow run: the columns of a task run, where they mean the same, and what only flow runs have.
flow_run: Final = Table(
    "flow_run",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("flow_id", String(36), ForeignKey("flow.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("state_id", String(36), nullable=False),
    Column("state_type", Text, nullable=False),
    Column("state_name", Text, nullable=False),
    Column("state_timestamp", BigInteger, nullable=False),
    Column("session_id", String(36)),
    Column("attempt", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("losses", BigInteger, nullable=False),
    Column("run_count", BigInteger, nullable=False),
    Column("retries", BigInteger, nullable=False),
    Column("retry_delay", Text, nullable=False),
    Column("retry_jitter", Float, nullable=False),
    Column("tags", Text, nullable=False),
    Column("labels", Text),
    Column("idempotency_key", Text),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("expected_start_time", BigInteger),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    Column("total_run_time", BigInteger, nullable=False),
    Column("deployment_id", String(36), ForeignKey("deployment.id", ondelete="SET NULL")),
    Column("parent_task_run_id", String(36)),  # which may be gone: no constraint
    Column("work_queue_id", String(36), ForeignKey("work_queue.id", ondelete="SET NULL")),
    Column("work_queue_name", Text),
    Column("flow_version", Text),
    Column("infrastructure_pid", Text),
    Column("retry_type", Text),  # in_process: by who runs it; reschedule: by a work queue; null: not at all
    Column("claimed_until", BigInteger),  # handed out to who asked for a claim: not to be handed out before then
    CheckConstraint(one_of("state_type"), name="state_type"),
    CheckConstraint("attempt >= 0 AND failures >= 0 AND losses >= 0", name="counts"),
    CheckConstraint(f"session_id IS NULL OR {one_of('state_type', HELD)}", name="lease"),
    sqlite_with_rowid=False,
)

Index(
    "uq_flow_run_idempotency",
    flow_run.c.flow_id,
    flow_run.c.idempotency_key,
    unique=True,
    sqlite_where=text("idempotency_key IS NOT NULL"),
    postgresql_where=text("idempotency_key IS NOT NULL"),
)
Index(
    "ix_flow_run_queued",
    flow_run.c.work_queue_id,
    flow_run.c.due,
    flow_run.c.id,
    sqlite_where=text("state_type = 'SCHEDULED'"),
    postgresql_where=text("state_type = 'SCHEDULED'"),
)
# Those that have a slot are counted by it, and all of a queue that is deleted are found.
Index(
    "ix_flow_run_queue",
    flow_run.c.work_queue_id,
    flow_run.c.state_type,
    flow_run.c.retry_type,
    sqlite_where=text("work_queue_id IS NOT NULL"),
    postgresql_where=text("work_queue_id IS NOT NULL"),
)
Index(
    "ix_flow_run_retried",
    flow_run.c.state_type,  # one and the same, both: see `ix_task_run_overdue`
    flow_run.c.retry_type,
    sqlite_where=text("state_type = 'SCHEDULED' AND retry_type = 'in_process'"),
    postgresql_where=text("state_type = 'SCHEDULED' AND retry_type = 'in_process'"),
)
Index(
    "ix_flow_run_claimed",
    flow_run.c.work_queue_id,
    flow_run.c.claimed_until,
    sqlite_where=text("state_type = 'SCHEDULED' AND claimed_until IS NOT NULL"),
    postgresql_where=text("state_type = 'SCHEDULED' AND claimed_until IS NOT NULL"),
)
Index(
    "ix_flow_run_overdue",
    flow_run.c.state_name,  # one and the same, both: see `ix_task_run_overdue`
    flow_run.c.state_type,
    flow_run.c.due,
    flow_run.c.id,
    sqlite_where=text("state_type = 'SCHEDULED' AND state_name = 'Scheduled'"),
    postgresql_where=text("state_type = 'SCHEDULED' AND state_name = 'Scheduled'"),
)
Index(
    "ix_flow_run_session",
    flow_run.c.session_id,
    sqlite_where=text("session_id IS NOT NULL"),
    postgresql_where=text("session_id IS NOT NULL"),
)
Index("ix_flow_run_flow", flow_run.c.flow_id)
Index("ix_flow_run_expected", flow_run.c.expected_start_time)
Index("ix_flow_run_state", flow_run.c.state_type)
Index("ix_flow_run_deployment", flow_run.c.deployment_id)
Index("ix_flow_run_parent", flow_run.c.parent_task_run_id)

#: What belongs to a flow run and is too large for the hot row.
flow_run_payload: Final = Table(
    "flow_run_payload",
    metadata,
    Column("flow_run_id", String(36), ForeignKey("flow_run.id", ondelete="CASCADE"), primary_key=True),
    Column("parameters", LargeBinary, nullable=False),
    Column("context", LargeBinary, nullable=False),
    Column("job_variables", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

#: State history of flow runs, as that of task runs.
flow_run_state: Final = Table(
    "flow_run_state",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("flow_run_id", String(36), ForeignKey("flow_run.id", ondelete="CASCADE"), nullable=False),
    Column("type", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("message", Text),
    Column("timestamp", BigInteger, nullable=False),
    Column("due", BigInteger),
    Column("attempt", BigInteger, nullable=False),
    Column("session_id", String(36)),
    Column("details", Text),
    Column("data", LargeBinary),
    CheckConstraint(one_of("type"), name="type"),
    sqlite_with_rowid=False,
)

Index("ix_flow_run_state_run", flow_run_state.c.flow_run_id, flow_run_state.c.timestamp)
