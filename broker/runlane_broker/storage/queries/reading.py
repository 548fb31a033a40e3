"""What the edges read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateType

from ..tables import task_run, task_run_payload, task_run_state, worker_session
from .base import const


def read_run(run_id: str) -> Executable:
    """Return a run with its current state and payloads."""
    return read_runs().where(task_run.c.id == run_id)


def read_runs() -> Select[Any]:
    """Return all runs with their current states and payloads."""
    state = task_run_state.alias("state")
    return (
        select(
            *task_run.c,
            state.c.message.label("state_message"),
            state.c.due.label("state_due"),
            task_run_payload.c.parameters,
            task_run_payload.c.result,
            task_run_payload.c.error,
        )
        .join(state, state.c.id == task_run.c.state_id)
        .join(task_run_payload, task_run_payload.c.task_run_id == task_run.c.id)
    )


def read_outcomes(ids: Sequence[str]) -> Executable:
    """Return state and, where final, outcome of these runs."""
    state = task_run_state.alias("state")
    return (
        select(
            task_run.c.id,
            task_run.c.task_key,
            task_run.c.state_type,
            task_run.c.state_name,
            state.c.message,
            task_run_payload.c.result,
            task_run_payload.c.error,
        )
        .join(state, state.c.id == task_run.c.state_id)
        .join(task_run_payload, task_run_payload.c.task_run_id == task_run.c.id)
        .where(task_run.c.id.in_(ids))
    )


def read_history(run_id: str) -> Executable:
    """Return a run's states, oldest first."""
    s = task_run_state.c
    return select(task_run_state).where(s.task_run_id == run_id).order_by(s.timestamp)


def read_sessions() -> Executable:
    """Return all sessions."""
    s = worker_session.c
    return select(s.id, s.epoch, s.client_id)


def count_queued() -> Executable:
    """Count the runs that wait."""
    queued = task_run.c.state_type == const(StateType.SCHEDULED)
    return select(func.count()).select_from(task_run).where(queued)


def count_leased() -> Executable:
    """Count the runs that sessions hold."""
    return select(func.count()).select_from(task_run).where(task_run.c.session_id.is_not(None))
