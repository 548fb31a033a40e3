"""The writer's statements on runs that somebody gives up, or wants to try again."""

from __future__ import annotations

from sqlalchemy import Update, func, literal_column, null, update
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateName, StateType

from ..tables import flow_run, task_run
from .base import const, param


def cancel_queued() -> Executable:
    """End a run that waits and has left nothing behind: no lease, no failure. Return what has to be known of it.

    The columns are those that a decision on its state would write.
    """
    t = task_run.c
    return (
        update(task_run)
        .where(
            t.id == param("id"),
            t.state_type == const(StateType.SCHEDULED),
            t.session_id.is_(None),
            t.failures == literal_column("0"),
        )
        .values(
            state_type=const(StateType.CANCELLED),
            state_name=const(StateName.CANCELLED),
            state_id=param("state_id"),
            state_timestamp=param("timestamp"),
            start_time=func.coalesce(t.start_time, param("timestamp")),
            end_time=func.coalesce(t.end_time, param("timestamp")),
            withheld=null(),
            updated=param("timestamp"),
        )
        .returning(t.task_key, t.attempt)
    )


def forget_losses() -> Update:
    """Let a run lose as many sessions again as if it had lost none."""
    return update(task_run).where(task_run.c.id == param("id")).values(losses=literal_column("0"))


def forget_losses_of_flow_run() -> Update:
    """Let a flow run do so, too."""
    return update(flow_run).where(flow_run.c.id == param("id")).values(losses=literal_column("0"))
