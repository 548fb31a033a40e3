"""The writer's statements on sessions and brokers."""

from __future__ import annotations

from sqlalchemy import Delete, Insert, Update, delete, insert, select, update
from sqlalchemy.sql.base import Executable

from ..tables import broker, worker_session
from .base import ONE, param


def holds_session() -> Executable:
    """Return a row if the session is this broker's at this epoch."""
    return select(ONE).where(
        worker_session.c.id == param("session_id"),
        worker_session.c.broker_id == param("broker_id"),
        worker_session.c.epoch == param("epoch"),
    )


def insert_session() -> Insert:
    """Open a session."""
    return insert(worker_session).values({c.name: param(c.name) for c in worker_session.c})


def read_session() -> Executable:
    """Return a session's epoch, client and token hash."""
    s = worker_session.c
    return select(s.epoch, s.client_id, s.token_hash).where(s.id == param("session_id"))


def resume_session() -> Update:
    """Take a session up: compare the epoch, set the next."""
    s = worker_session.c
    return (
        update(worker_session)
        .where(s.id == param("session_id"), s.epoch == param("old_epoch"))
        .values(
            broker_id=param("broker_id"),
            epoch=s.epoch + ONE,
            updated=param("timestamp"),
        )
    )


def delete_session() -> Delete:
    """End a session that is still at this epoch."""
    s = worker_session.c
    return delete(worker_session).where(s.id == param("session_id"), s.epoch == param("epoch"))


def insert_broker() -> Insert:
    """Register a broker process."""
    return insert(broker).values({c.name: param(c.name) for c in broker.c})


def delete_brokers() -> Delete:
    """Forget brokers that ran on this database before (SQLite has one at a time)."""
    return delete(broker)


def adopt_sessions() -> Update:
    """Take over the sessions of brokers that ran on this database before."""
    return update(worker_session).values(broker_id=param("broker_id"))


def beat() -> Update:
    """Say that a broker is alive."""
    return update(broker).where(broker.c.id == param("broker_id")).values(heartbeat=param("timestamp"))


def mark_commit() -> Update:
    """Number a transaction, so that its outcome can be looked up."""
    return update(broker).where(broker.c.id == param("broker_id")).values(commit_number=param("number"))


def read_commit() -> Executable:
    """Return the number of a broker's last committed transaction."""
    return select(broker.c.commit_number).where(broker.c.id == param("broker_id"))
