"""Task runs: the hot row, payloads, state history, cached results."""

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
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

from .base import ENDED, HELD, metadata, one_of

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
    # What only other clients' runs have. Null costs next to nothing, and stands for "none", 0 or empty.
    Column("flow_run_id", String(36)),  # SQLite cannot add a constraint; who creates and deletes looks
    Column("flow_run_run_count", BigInteger),
    Column("task_version", Text),
    Column("cache_key", Text),
    Column("cache_expiration", BigInteger),
    Column("labels", Text),
    Column("task_inputs", Text),
    Column("withheld", SmallInteger),  # SCHEDULED, but not to be handed out: see records
    Column("acknowledged", BigInteger),  # the attempt that its worker has received
    CheckConstraint(one_of("state_type"), name="state_type"),
    CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
    CheckConstraint("lane IN (0, 1)", name="lane"),
    CheckConstraint("attempt >= 0 AND failures >= 0 AND losses >= 0", name="counts"),
    # A client that waits for a retry by itself holds its run meanwhile.
    CheckConstraint(f"session_id IS NULL OR {one_of('state_type', HELD)} OR withheld IS NOT NULL", name="lease"),
    sqlite_with_rowid=False,
)

Index(
    "ix_task_run_dispatch",
    task_run.c.task_key,
    task_run.c.priority,
    task_run.c.lane,
    task_run.c.due,
    task_run.c.id,
    sqlite_where=text("state_type = 'SCHEDULED' AND withheld IS NULL"),
    postgresql_where=text("state_type = 'SCHEDULED' AND withheld IS NULL"),
)
Index(
    "ix_task_run_overdue",
    # One and the same, both: so SQLite prefers this index to `ix_task_run_due`, where what is Late comes first.
    task_run.c.state_name,
    task_run.c.state_type,
    task_run.c.due,
    task_run.c.id,
    sqlite_where=text("state_type = 'SCHEDULED' AND state_name = 'Scheduled' AND withheld IS NULL"),
    postgresql_where=text("state_type = 'SCHEDULED' AND state_name = 'Scheduled' AND withheld IS NULL"),
)
Index(
    "ix_task_run_expires",
    task_run.c.state_type,  # one and the same: see `ix_task_run_due`
    task_run.c.expires,
    task_run.c.id,
    sqlite_where=text("state_type = 'SCHEDULED' AND withheld IS NULL AND expires IS NOT NULL"),
    postgresql_where=text("state_type = 'SCHEDULED' AND withheld IS NULL AND expires IS NOT NULL"),
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
#: A client's own name for a run. Where the broker chose it, it is the id, which is unique already.
Index(
    "uq_task_run_dynamic_key",
    task_run.c.task_key,
    task_run.c.dynamic_key,
    unique=True,
    sqlite_where=text("flow_run_id IS NULL AND dynamic_key <> id"),
    postgresql_where=text("flow_run_id IS NULL AND dynamic_key <> id"),
)
Index(
    "uq_task_run_flow_run_dynamic_key",
    task_run.c.flow_run_id,
    task_run.c.task_key,
    task_run.c.dynamic_key,
    unique=True,
    sqlite_where=text("flow_run_id IS NOT NULL"),
    postgresql_where=text("flow_run_id IS NOT NULL"),
)
# Whether a flow run still has some is asked before it is deleted.
Index(
    "ix_task_run_live",
    task_run.c.flow_run_id,
    sqlite_where=text(f"flow_run_id IS NOT NULL AND state_type NOT IN ({ENDED})"),
    postgresql_where=text(f"flow_run_id IS NOT NULL AND state_type NOT IN ({ENDED})"),
)

# What lists are sorted and filtered by. Each costs every run a few microseconds of the writer's time; those of
# `end_time` and `due` only once, or only for runs that wait.
Index("ix_task_run_name", task_run.c.name)
Index("ix_task_run_expected", task_run.c.expected_start_time)
Index("ix_task_run_state", task_run.c.state_type, task_run.c.task_key)
Index(
    "ix_task_run_ended",
    task_run.c.end_time,
    sqlite_where=text("end_time IS NOT NULL"),
    postgresql_where=text("end_time IS NOT NULL"),
)
Index(
    "ix_task_run_due",
    task_run.c.state_type,  # one and the same: it makes SQLite prefer this index to that of the states
    task_run.c.due,
    sqlite_where=text("state_type = 'SCHEDULED'"),
    postgresql_where=text("state_type = 'SCHEDULED'"),
)

#: Which runs must have ended before another is handed out. Rows go when they have.
task_run_wait: Final = Table(
    "task_run_wait",
    metadata,
    Column("upstream_id", String(36), primary_key=True),
    Column("task_run_id", String(36), ForeignKey("task_run.id", ondelete="CASCADE"), primary_key=True),
    sqlite_with_rowid=False,
)

Index("ix_task_run_wait_run", task_run_wait.c.task_run_id)

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
    Column("details", Text),
    Column("data", LargeBinary),
    CheckConstraint(one_of("type"), name="type"),
    sqlite_with_rowid=False,
)

Index("ix_task_run_state_run", task_run_state.c.task_run_id, task_run_state.c.timestamp)

#: Results that may stand in for a run's own, by cache key: the newest that has not expired counts.
task_run_cache: Final = Table(
    "task_run_cache",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("cache_key", Text, nullable=False),
    Column("cache_expiration", BigInteger),
    Column("task_run_state_id", String(36), ForeignKey("task_run_state.id", ondelete="CASCADE"), nullable=False),
    Column("created", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

Index("ix_task_run_cache_key", task_run_cache.c.cache_key, task_run_cache.c.id)
Index("ix_task_run_cache_state", task_run_cache.c.task_run_state_id)
