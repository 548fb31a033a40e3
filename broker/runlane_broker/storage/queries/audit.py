"""Statements that look at what stands in the database, to compare it with what is in memory."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Delete, Select, delete, select
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateType

from ..tables import FLOW_RUN, TASK_RUN, RunKind, concurrency_slot, task_run, worker_session
from .base import one_of, param


def _read(kind: RunKind, *others: ColumnElement[Any]) -> Select[Any]:
    run = kind.run.c
    columns: list[ColumnElement[Any]] = [run.id, run.state_type, run.session_id, run.attempt, run.due]
    return select(*columns, *others)


def read_leases(kind: RunKind) -> Executable:
    """Return all runs of a kind that sessions hold."""
    return _read(kind).where(kind.run.c.session_id.is_not(None))


def audit_task_run() -> Executable:
    """Return the same of one task run, with its key and whether it is withheld."""
    t = task_run.c
    return _read(TASK_RUN, t.task_key, t.withheld).where(t.id == param("id"))


def audit_flow_run() -> Executable:
    """Return the same of one flow run."""
    return _read(FLOW_RUN).where(FLOW_RUN.run.c.id == param("id"))


def audit_session() -> Executable:
    """Return id, epoch and client of one session."""
    s = worker_session.c
    return select(s.id, s.epoch, s.client_id).where(s.id == param("id"))


def _has_no_slot() -> ColumnElement[bool]:
    return ~one_of(task_run.c.state_type, (StateType.RUNNING, StateType.CANCELLING))


def idle_slots(limit: int) -> Executable:
    """Return runs that have slots and neither run nor are being stopped."""
    c = concurrency_slot.c
    return select(c.task_run_id).join(task_run, task_run.c.id == c.task_run_id).where(_has_no_slot()).limit(limit)


def free_idle_slots() -> Delete:
    """Give the slots of a run back, unless it runs or is being stopped."""
    c = concurrency_slot.c
    idle = select(task_run.c.id).where(task_run.c.id == param("id"), _has_no_slot())
    return delete(concurrency_slot).where(c.task_run_id == param("id"), c.task_run_id.in_(idle))
