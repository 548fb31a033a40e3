"""The schema: what the migrations build, as SQLAlchemy metadata.

Times are microseconds UTC, durations too; ids are UUIDs as text, so that they sort by time and read well in any
client. Integrity stands in constraints, so that a bug cannot write nonsense.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

from runlane.protocol.states import StateType

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_STATES = ", ".join(f"'{state.value}'" for state in StateType)
_HELD = "'PENDING', 'RUNNING', 'CANCELLING'"

#: The hot row of a run: what dispatch, leases and states need. `lane`, `priority` and `due` are the only truth
#: about order.
task_run: Final = Table(
    "task_run",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("task_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("dynamic_key", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("expires", BigInteger),
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
    Column("timeout", Float),
    Column("tags", Text, nullable=False),
    Column("headers", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("payload_hash", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("expected_start_time", BigInteger),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    Column("total_run_time", BigInteger, nullable=False),
    CheckConstraint(f"state_type IN ({_STATES})", name="state_type"),
    CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
    CheckConstraint("lane IN (0, 1)", name="lane"),
    CheckConstraint("attempt >= 0 AND failures >= 0 AND losses >= 0", name="counts"),
    CheckConstraint(f"session_id IS NULL OR state_type IN ({_HELD})", name="lease"),
    sqlite_with_rowid=False,
)

Index(
    "ix_task_run_dispatch",
    task_run.c.task_key,
    task_run.c.priority,
    task_run.c.lane,
    task_run.c.due,
    task_run.c.id,
    sqlite_where=text("state_type = 'SCHEDULED'"),
    postgresql_where=text("state_type = 'SCHEDULED'"),
)
Index(
    "ix_task_run_session",
    task_run.c.session_id,
    sqlite_where=text("session_id IS NOT NULL"),
    postgresql_where=text("session_id IS NOT NULL"),
)
Index(
    "uq_task_run_idempotency",
    task_run.c.task_key,
    task_run.c.idempotency_key,
    unique=True,
    sqlite_where=text("idempotency_key IS NOT NULL"),
    postgresql_where=text("idempotency_key IS NOT NULL"),
)

#: Payloads, opaque and out of the hot row: a state change must not rewrite them.
task_run_payload: Final = Table(
    "task_run_payload",
    metadata,
    Column("task_run_id", String(36), ForeignKey("task_run.id", ondelete="CASCADE"), primary_key=True),
    Column("parameters", LargeBinary, nullable=False),
    Column("result", LargeBinary),
    Column("error", LargeBinary),
    sqlite_with_rowid=False,
)

#: State history, a row per transition; never updated (a trigger holds it).
task_run_state: Final = Table(
    "task_run_state",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("task_run_id", String(36), ForeignKey("task_run.id", ondelete="CASCADE"), nullable=False),
    Column("type", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("message", Text),
    Column("timestamp", BigInteger, nullable=False),
    Column("due", BigInteger),
    Column("attempt", BigInteger, nullable=False),
    Column("session_id", String(36)),
    CheckConstraint(f"type IN ({_STATES})", name="type"),
    sqlite_with_rowid=False,
)

Index("ix_task_run_state_run", task_run_state.c.task_run_id, task_run_state.c.timestamp)

#: One row per live session. `(broker_id, epoch)` is compared and set by every resume and every lease.
worker_session: Final = Table(
    "worker_session",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("broker_id", String(36), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("token_hash", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: One row per broker process. `commit_number` tells, after a commit of unknown outcome, whether it happened.
broker: Final = Table(
    "broker",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("version", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("heartbeat", BigInteger, nullable=False),
    Column("commit_number", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
