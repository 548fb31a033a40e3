# ruff: noqa: E501  (as generated)
"""What Prefect's clients need: objects and logs that are kept for them, how a session talks, retries that wait with their worker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runlane_broker.storage.migrations.declarations import reword

revision = "0003"
down_revision = "0002"

_HELD = "session_id IS NULL OR state_type IN ('PENDING', 'RUNNING', 'CANCELLING')"


def upgrade() -> None:
    op.create_table(
        "kept_object",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kept_object")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "uq_kept_object_name",
        "kept_object",
        ["kind", "parent", "name"],
        unique=True,
        sqlite_where=sa.text("kind <> 'artifact'"),
        postgresql_where=sa.text("kind <> 'artifact'"),
    )
    op.create_index("ix_kept_object_name", "kept_object", ["kind", "name"], unique=False)
    op.create_table(
        "log_line",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("task_run_id", sa.String(length=36), nullable=True),
        sa.Column("flow_run_id", sa.String(length=36), nullable=True),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_line")),
        sqlite_with_rowid=False,
    )
    for kind in ("task_run", "flow_run"):
        op.create_index(
            f"ix_log_line_{kind}",
            "log_line",
            [f"{kind}_id", "timestamp"],
            unique=False,
            sqlite_where=sa.text(f"{kind}_id IS NOT NULL"),
            postgresql_where=sa.text(f"{kind}_id IS NOT NULL"),
        )
    op.create_index("ix_log_line_timestamp", "log_line", ["timestamp"], unique=False)
    op.create_table(
        "task_run_wait",
        sa.Column("upstream_id", sa.String(length=36), nullable=False),
        sa.Column("task_run_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_run_id"], ["task_run.id"], name=op.f("fk_task_run_wait_task_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("upstream_id", "task_run_id", name=op.f("pk_task_run_wait")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_task_run_wait_run", "task_run_wait", ["task_run_id"], unique=False)
    op.add_column("worker_session", sa.Column("dialect", sa.Text(), nullable=True))
    op.add_column("task_run", sa.Column("acknowledged", sa.BigInteger(), nullable=True))
    op.drop_index("ix_flow_run_active", "flow_run")
    op.create_index(
        "ix_flow_run_queue",
        "flow_run",
        ["work_queue_id", "state_type", "retry_type"],
        unique=False,
        sqlite_where=sa.text("work_queue_id IS NOT NULL"),
        postgresql_where=sa.text("work_queue_id IS NOT NULL"),
    )
    op.create_index(
        "ix_flow_run_retried",
        "flow_run",
        ["state_type", "retry_type"],
        unique=False,
        sqlite_where=sa.text("state_type = 'SCHEDULED' AND retry_type = 'in_process'"),
        postgresql_where=sa.text("state_type = 'SCHEDULED' AND retry_type = 'in_process'"),
    )
    live = "flow_run_id IS NOT NULL AND state_type NOT IN ('CANCELLED', 'COMPLETED', 'CRASHED', 'FAILED')"
    op.create_index(
        "ix_task_run_live",
        "task_run",
        ["flow_run_id"],
        unique=False,
        sqlite_where=sa.text(live),
        postgresql_where=sa.text(live),
    )
    _let_waiting_runs_be_held()


def _let_waiting_runs_be_held() -> None:
    """Widen a CHECK."""
    wider = f"{_HELD} OR withheld IS NOT NULL"
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        op.drop_constraint(op.f("ck_task_run_lease"), "task_run", type_="check")
        op.create_check_constraint(op.f("ck_task_run_lease"), "task_run", wider)
        return
    reword(connection, {f"CHECK ({_HELD})": f"CHECK ({wider})"}, "task_run")
