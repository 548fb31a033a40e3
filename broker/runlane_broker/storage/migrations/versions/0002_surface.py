# ruff: noqa: E501  (as generated)
"""Flows, flow runs, deployments, work pools and queues, limits by tag, cached results; what other clients' runs have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "concurrency_limit",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("concurrency_limit", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("concurrency_limit >= 0", name=op.f("ck_concurrency_limit_concurrency_limit")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_concurrency_limit")),
        sqlite_with_rowid=False,
    )
    op.create_index("uq_concurrency_limit_tag", "concurrency_limit", ["tag"], unique=True)
    op.create_table(
        "flow",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flow")),
        sqlite_with_rowid=False,
    )
    op.create_index("uq_flow_name", "flow", ["name"], unique=True)
    op.create_table(
        "work_pool",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("base_job_template", sa.LargeBinary(), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("concurrency_limit", sa.BigInteger(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "concurrency_limit IS NULL OR concurrency_limit >= 0", name=op.f("ck_work_pool_concurrency_limit")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work_pool")),
        sqlite_with_rowid=False,
    )
    op.create_index("uq_work_pool_name", "work_pool", ["name"], unique=True)
    op.create_table(
        "work_queue",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("work_pool_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("concurrency_limit", sa.BigInteger(), nullable=True),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("filter", sa.Text(), nullable=True),
        sa.Column("last_polled", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("late_after", sa.BigInteger(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('READY', 'NOT_READY', 'PAUSED')", name=op.f("ck_work_queue_status")),
        sa.CheckConstraint(
            "concurrency_limit IS NULL OR concurrency_limit >= 0", name=op.f("ck_work_queue_concurrency_limit")
        ),
        sa.CheckConstraint("late_after IS NULL OR late_after >= 0", name=op.f("ck_work_queue_late_after")),
        sa.CheckConstraint("priority >= 1", name=op.f("ck_work_queue_priority")),
        sa.ForeignKeyConstraint(
            ["work_pool_id"], ["work_pool.id"], name=op.f("fk_work_queue_work_pool_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work_queue")),
        sqlite_with_rowid=False,
    )
    op.create_index("uq_work_queue_name", "work_queue", ["work_pool_id", "name"], unique=True)
    op.create_index("uq_work_queue_priority", "work_queue", ["work_pool_id", "priority"], unique=True)
    op.create_table(
        "deployment",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("flow_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("entrypoint", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("parameters", sa.LargeBinary(), nullable=False),
        sa.Column("parameter_openapi_schema", sa.LargeBinary(), nullable=False),
        sa.Column("job_variables", sa.LargeBinary(), nullable=False),
        sa.Column("enforce_parameter_schema", sa.Boolean(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("concurrency_limit", sa.BigInteger(), nullable=True),
        sa.Column("work_queue_name", sa.Text(), nullable=True),
        sa.Column("work_queue_id", sa.String(length=36), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "concurrency_limit IS NULL OR concurrency_limit >= 0", name=op.f("ck_deployment_concurrency_limit")
        ),
        sa.ForeignKeyConstraint(["flow_id"], ["flow.id"], name=op.f("fk_deployment_flow_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["work_queue_id"], ["work_queue.id"], name=op.f("fk_deployment_work_queue_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_deployment_work_queue", "deployment", ["work_queue_id"], unique=False)
    op.create_index("uq_deployment_flow_name", "deployment", ["flow_id", "name"], unique=True)
    op.create_table(
        "flow_run",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("flow_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("state_id", sa.String(length=36), nullable=False),
        sa.Column("state_type", sa.Text(), nullable=False),
        sa.Column("state_name", sa.Text(), nullable=False),
        sa.Column("state_timestamp", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.String(length=36), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("losses", sa.BigInteger(), nullable=False),
        sa.Column("run_count", sa.BigInteger(), nullable=False),
        sa.Column("retries", sa.BigInteger(), nullable=False),
        sa.Column("retry_delay", sa.Text(), nullable=False),
        sa.Column("retry_jitter", sa.Float(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("expected_start_time", sa.BigInteger(), nullable=True),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("total_run_time", sa.BigInteger(), nullable=False),
        sa.Column("deployment_id", sa.String(length=36), nullable=True),
        sa.Column("parent_task_run_id", sa.String(length=36), nullable=True),
        sa.Column("work_queue_id", sa.String(length=36), nullable=True),
        sa.Column("work_queue_name", sa.Text(), nullable=True),
        sa.Column("flow_version", sa.Text(), nullable=True),
        sa.Column("infrastructure_pid", sa.Text(), nullable=True),
        sa.Column("retry_type", sa.Text(), nullable=True),
        sa.Column("claimed_until", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "session_id IS NULL OR state_type IN ('PENDING', 'RUNNING', 'CANCELLING')",
            name=op.f("ck_flow_run_lease"),
        ),
        sa.CheckConstraint(
            "state_type IN ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')",
            name=op.f("ck_flow_run_state_type"),
        ),
        sa.CheckConstraint("attempt >= 0 AND failures >= 0 AND losses >= 0", name=op.f("ck_flow_run_counts")),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployment.id"], name=op.f("fk_flow_run_deployment_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["flow_id"], ["flow.id"], name=op.f("fk_flow_run_flow_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["work_queue_id"], ["work_queue.id"], name=op.f("fk_flow_run_work_queue_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flow_run")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_flow_run_active",
        "flow_run",
        ["work_queue_id", "state_type"],
        unique=False,
        sqlite_where=sa.text("state_type IN ('PENDING', 'RUNNING', 'CANCELLING')"),
        postgresql_where=sa.text("state_type IN ('PENDING', 'RUNNING', 'CANCELLING')"),
    )
    op.create_index(
        "ix_flow_run_claimed",
        "flow_run",
        ["work_queue_id", "claimed_until"],
        unique=False,
        sqlite_where=sa.text("state_type = 'SCHEDULED' AND claimed_until IS NOT NULL"),
        postgresql_where=sa.text("state_type = 'SCHEDULED' AND claimed_until IS NOT NULL"),
    )
    op.create_index(
        "ix_flow_run_overdue",
        "flow_run",
        ["state_name", "state_type", "due", "id"],
        unique=False,
        sqlite_where=sa.text("state_type = 'SCHEDULED' AND state_name = 'Scheduled'"),
        postgresql_where=sa.text("state_type = 'SCHEDULED' AND state_name = 'Scheduled'"),
    )
    op.create_index("ix_flow_run_deployment", "flow_run", ["deployment_id"], unique=False)
    op.create_index("ix_flow_run_flow", "flow_run", ["flow_id"], unique=False)
    op.create_index("ix_flow_run_expected", "flow_run", ["expected_start_time"], unique=False)
    op.create_index("ix_flow_run_state", "flow_run", ["state_type"], unique=False)
    op.create_index("ix_flow_run_parent", "flow_run", ["parent_task_run_id"], unique=False)
    op.create_index(
        "ix_flow_run_queued",
        "flow_run",
        ["work_queue_id", "due", "id"],
        unique=False,
        sqlite_where=sa.text("state_type = 'SCHEDULED'"),
        postgresql_where=sa.text("state_type = 'SCHEDULED'"),
    )
    op.create_index(
        "ix_flow_run_session",
        "flow_run",
        ["session_id"],
        unique=False,
        sqlite_where=sa.text("session_id IS NOT NULL"),
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )
    op.create_index(
        "uq_flow_run_idempotency",
        "flow_run",
        ["flow_id", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "flow_run_payload",
        sa.Column("flow_run_id", sa.String(length=36), nullable=False),
        sa.Column("parameters", sa.LargeBinary(), nullable=False),
        sa.Column("context", sa.LargeBinary(), nullable=False),
        sa.Column("job_variables", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["flow_run_id"], ["flow_run.id"], name=op.f("fk_flow_run_payload_flow_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("flow_run_id", name=op.f("pk_flow_run_payload")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "flow_run_state",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("flow_run_id", sa.String(length=36), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.String(length=36), nullable=True),
        sa.Column("details", sa.Text(), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint(
            "type IN ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')",
            name=op.f("ck_flow_run_state_type"),
        ),
        sa.ForeignKeyConstraint(
            ["flow_run_id"], ["flow_run.id"], name=op.f("fk_flow_run_state_flow_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flow_run_state")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_flow_run_state_run", "flow_run_state", ["flow_run_id", "timestamp"], unique=False)
    op.create_table(
        "concurrency_slot",
        sa.Column("concurrency_limit_id", sa.String(length=36), nullable=False),
        sa.Column("task_run_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["concurrency_limit_id"],
            ["concurrency_limit.id"],
            name=op.f("fk_concurrency_slot_concurrency_limit_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["task_run_id"], ["task_run.id"], name=op.f("fk_concurrency_slot_task_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("concurrency_limit_id", "task_run_id", name=op.f("pk_concurrency_slot")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_concurrency_slot_run", "concurrency_slot", ["task_run_id"], unique=False)
    op.create_table(
        "task_run_cache",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("cache_key", sa.Text(), nullable=False),
        sa.Column("cache_expiration", sa.BigInteger(), nullable=True),
        sa.Column("task_run_state_id", sa.String(length=36), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_run_state_id"],
            ["task_run_state.id"],
            name=op.f("fk_task_run_cache_task_run_state_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_run_cache")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_task_run_cache_key", "task_run_cache", ["cache_key", "id"], unique=False)
    op.create_index("ix_task_run_cache_state", "task_run_cache", ["task_run_state_id"], unique=False)
    op.add_column("task_run", sa.Column("flow_run_id", sa.String(length=36), nullable=True))
    op.add_column("task_run", sa.Column("flow_run_run_count", sa.BigInteger(), nullable=True))
    op.add_column("task_run", sa.Column("task_version", sa.Text(), nullable=True))
    op.add_column("task_run", sa.Column("cache_key", sa.Text(), nullable=True))
    op.add_column("task_run", sa.Column("cache_expiration", sa.BigInteger(), nullable=True))
    op.add_column("task_run", sa.Column("labels", sa.Text(), nullable=True))
    op.add_column("task_run", sa.Column("task_inputs", sa.Text(), nullable=True))
    op.add_column("task_run", sa.Column("withheld", sa.SmallInteger(), nullable=True))
    op.drop_index("ix_task_run_dispatch", "task_run")
    op.create_index(
        "ix_task_run_dispatch",
        "task_run",
        ["task_key", "priority", "lane", "due", "id"],
        unique=False,
        sqlite_where=sa.text("state_type = 'SCHEDULED' AND withheld IS NULL"),
        postgresql_where=sa.text("state_type = 'SCHEDULED' AND withheld IS NULL"),
    )
    # Earlier versions did not look at a client's own name for a run: the first that bears it keeps it.
    op.execute(
        "UPDATE task_run SET dynamic_key = id WHERE dynamic_key <> id AND EXISTS (SELECT 1 FROM task_run AS first "
        "WHERE first.task_key = task_run.task_key AND first.dynamic_key = task_run.dynamic_key AND first.id < task_run.id)"
    )
    op.create_index(
        "ix_task_run_overdue",
        "task_run",
        ["state_name", "state_type", "due", "id"],
        unique=False,
        sqlite_where=sa.text("state_type = 'SCHEDULED' AND state_name = 'Scheduled' AND withheld IS NULL"),
        postgresql_where=sa.text("state_type = 'SCHEDULED' AND state_name = 'Scheduled' AND withheld IS NULL"),
    )
    op.create_index(
        "ix_task_run_expires",
        "task_run",
        ["state_type", "expires", "id"],
        unique=False,
        sqlite_where=sa.text("state_type = 'SCHEDULED' AND withheld IS NULL AND expires IS NOT NULL"),
        postgresql_where=sa.text("state_type = 'SCHEDULED' AND withheld IS NULL AND expires IS NOT NULL"),
    )
    op.create_index(
        "uq_task_run_dynamic_key",
        "task_run",
        ["task_key", "dynamic_key"],
        unique=True,
        sqlite_where=sa.text("flow_run_id IS NULL AND dynamic_key <> id"),
        postgresql_where=sa.text("flow_run_id IS NULL AND dynamic_key <> id"),
    )
    op.create_index(
        "uq_task_run_flow_run_dynamic_key",
        "task_run",
        ["flow_run_id", "task_key", "dynamic_key"],
        unique=True,
        sqlite_where=sa.text("flow_run_id IS NOT NULL"),
        postgresql_where=sa.text("flow_run_id IS NOT NULL"),
    )
    op.create_index("ix_task_run_name", "task_run", ["name"], unique=False)
    op.create_index("ix_task_run_expected", "task_run", ["expected_start_time"], unique=False)
    op.create_index("ix_task_run_state", "task_run", ["state_type", "task_key"], unique=False)
    op.create_index(
        "ix_task_run_ended",
        "task_run",
        ["end_time"],
        unique=False,
        sqlite_where=sa.text("end_time IS NOT NULL"),
        postgresql_where=sa.text("end_time IS NOT NULL"),
    )
    op.create_index(
        "ix_task_run_due",
        "task_run",
        ["state_type", "due"],
        unique=False,
        sqlite_where=sa.text("state_type = 'SCHEDULED'"),
        postgresql_where=sa.text("state_type = 'SCHEDULED'"),
    )
    op.add_column("task_run_state", sa.Column("details", sa.Text(), nullable=True))
    op.add_column("task_run_state", sa.Column("data", sa.LargeBinary(), nullable=True))
    op.execute(
        "CREATE TRIGGER tr_flow_run_state_append_only BEFORE UPDATE ON flow_run_state "
        "BEGIN SELECT RAISE(ABORT, 'state history is append-only'); END"
    )
