# ruff: noqa: E501  (as generated)
"""Runs, payloads, state history, sessions and brokers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "broker",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat", sa.BigInteger(), nullable=False),
        sa.Column("commit_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_broker"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "task_run",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("task_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dynamic_key", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
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
        sa.Column("timeout", sa.Float(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("payload_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("expected_start_time", sa.BigInteger(), nullable=True),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("total_run_time", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "session_id IS NULL OR state_type IN ('PENDING', 'RUNNING', 'CANCELLING')",
            name=op.f("ck_task_run_lease"),
        ),
        sa.CheckConstraint(
            "state_type IN ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')",
            name=op.f("ck_task_run_state_type"),
        ),
        sa.CheckConstraint("attempt >= 0 AND failures >= 0 AND losses >= 0", name=op.f("ck_task_run_counts")),
        sa.CheckConstraint("lane IN (0, 1)", name=op.f("ck_task_run_lane")),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("ck_task_run_priority")),
        sa.PrimaryKeyConstraint("id", name="pk_task_run"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_task_run_dispatch",
        "task_run",
        ["task_key", "priority", "lane", "due", "id"],
        unique=False,
        sqlite_where=sa.text("state_type = 'SCHEDULED'"),
        postgresql_where=sa.text("state_type = 'SCHEDULED'"),
    )
    op.create_index(
        "ix_task_run_session",
        "task_run",
        ["session_id"],
        unique=False,
        sqlite_where=sa.text("session_id IS NOT NULL"),
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )
    op.create_index(
        "uq_task_run_idempotency",
        "task_run",
        ["task_key", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "worker_session",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("broker_id", sa.String(length=36), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_worker_session"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "task_run_payload",
        sa.Column("task_run_id", sa.String(length=36), nullable=False),
        sa.Column("parameters", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["task_run_id"], ["task_run.id"], name="fk_task_run_payload_task_run_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("task_run_id", name="pk_task_run_payload"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "task_run_state",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("task_run_id", sa.String(length=36), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.String(length=36), nullable=True),
        sa.CheckConstraint(
            "type IN ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')",
            name=op.f("ck_task_run_state_type"),
        ),
        sa.ForeignKeyConstraint(
            ["task_run_id"], ["task_run.id"], name="fk_task_run_state_task_run_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_task_run_state"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_task_run_state_run", "task_run_state", ["task_run_id", "timestamp"], unique=False)
    op.execute(
        "CREATE TRIGGER tr_task_run_state_append_only BEFORE UPDATE ON task_run_state "
        "BEGIN SELECT RAISE(ABORT, 'state history is append-only'); END"
    )
