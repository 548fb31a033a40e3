"""What bounds and orders execution: work pools, work queues, limits by tag."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
)

from .base import metadata

#: A group of work queues with one limit over all of them.
work_pool: Final = Table(
    "work_pool",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("description", Text),
    Column("base_job_template", LargeBinary, nullable=False),
    Column("is_paused", Boolean(create_constraint=False), nullable=False),
    Column("concurrency_limit", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    CheckConstraint("concurrency_limit IS NULL OR concurrency_limit >= 0", name="concurrency_limit"),
    sqlite_with_rowid=False,
)

Index("uq_work_pool_name", work_pool.c.name, unique=True)

#: A line in which flow runs wait. `priority` 1 goes first; no two queues of a pool have the same. `filter` is
#: that of the old queues, which choose runs by tags and deployments: JSON.
work_queue: Final = Table(
    "work_queue",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("work_pool_id", String(36), ForeignKey("work_pool.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("is_default", Boolean(create_constraint=False), nullable=False),
    Column("is_paused", Boolean(create_constraint=False), nullable=False),
    Column("concurrency_limit", BigInteger),
    Column("priority", BigInteger, nullable=False),
    Column("filter", Text),
    Column("last_polled", BigInteger),
    Column("status", Text, nullable=False),
    Column("late_after", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    CheckConstraint("priority >= 1", name="priority"),
    CheckConstraint("concurrency_limit IS NULL OR concurrency_limit >= 0", name="concurrency_limit"),
    CheckConstraint("late_after IS NULL OR late_after >= 0", name="late_after"),
    CheckConstraint("status IN ('READY', 'NOT_READY', 'PAUSED')", name="status"),
    sqlite_with_rowid=False,
)

Index("uq_work_queue_name", work_queue.c.work_pool_id, work_queue.c.name, unique=True)
Index("uq_work_queue_priority", work_queue.c.work_pool_id, work_queue.c.priority, unique=True)

#: How many task runs with a tag may be RUNNING at once.
concurrency_limit: Final = Table(
    "concurrency_limit",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tag", Text, nullable=False),
    Column("concurrency_limit", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    CheckConstraint("concurrency_limit >= 0", name="concurrency_limit"),
    sqlite_with_rowid=False,
)

Index("uq_concurrency_limit_tag", concurrency_limit.c.tag, unique=True)

#: The slots that are taken, a row each. A run that is deleted gives its slots back.
concurrency_slot: Final = Table(
    "concurrency_slot",
    metadata,
    Column(
        "concurrency_limit_id",
        String(36),
        ForeignKey("concurrency_limit.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("task_run_id", String(36), ForeignKey("task_run.id", ondelete="CASCADE"), primary_key=True),
    sqlite_with_rowid=False,
)

Index("ix_concurrency_slot_run", concurrency_slot.c.task_run_id)
