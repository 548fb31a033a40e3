"""Brokers and the sessions of their workers."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    LargeBinary,
    String,
    Table,
    Text,
)

from .base import metadata

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
    Column("dialect", Text),  # null: runlane.v1
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
