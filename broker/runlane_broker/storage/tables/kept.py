"""What other clients keep with the broker, and only get back: objects by kind and name, and the lines of logs."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, SmallInteger, String, Table, Text, text

from .base import metadata

#: Objects that mean nothing here. `data` is a JSON object. A name is unique among those of its kind and parent,
#: except where a kind keeps many of one name (artifacts: the newest counts).
kept_object: Final = Table(
    "kept_object",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("parent", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

Index(
    "uq_kept_object_name",
    kept_object.c.kind,
    kept_object.c.parent,
    kept_object.c.name,
    unique=True,
    sqlite_where=text("kind <> 'artifact'"),
    postgresql_where=text("kind <> 'artifact'"),
)
Index("ix_kept_object_name", kept_object.c.kind, kept_object.c.name)

#: What tasks have logged. No constraint ties a line to its run: it may come first, and outlive it.
log_line: Final = Table(
    "log_line",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("task_run_id", String(36)),
    Column("flow_run_id", String(36)),
    Column("level", SmallInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

Index(
    "ix_log_line_task_run",
    log_line.c.task_run_id,
    log_line.c.timestamp,
    sqlite_where=text("task_run_id IS NOT NULL"),
    postgresql_where=text("task_run_id IS NOT NULL"),
)
Index(
    "ix_log_line_flow_run",
    log_line.c.flow_run_id,
    log_line.c.timestamp,
    sqlite_where=text("flow_run_id IS NOT NULL"),
    postgresql_where=text("flow_run_id IS NOT NULL"),
)
Index("ix_log_line_timestamp", log_line.c.timestamp)
