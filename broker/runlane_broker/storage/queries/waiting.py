"""The writer's statements on runs that wait for others to end."""

from __future__ import annotations

from sqlalchemy import Insert, Update, delete, exists, insert, select, update
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import FINAL, StateType

from ..tables import task_run, task_run_wait
from .base import const, one_of, param


def read_unfinished() -> Executable:
    """Return a row if there is such a run and it has not ended."""
    t = task_run.c
    return select(t.id).where(t.id == param("id"), ~one_of(t.state_type, FINAL))


def insert_wait() -> Insert:
    """Have a run wait for another."""
    return insert(task_run_wait).values({c.name: param(c.name) for c in task_run_wait.c})


def withhold_run() -> Update:
    """Do not hand a run out."""
    return update(task_run).where(task_run.c.id == param("id")).values(withheld=param("waits"))


def delete_waits_for() -> Executable:
    """Let nothing wait for a run any more; return what did."""
    w = task_run_wait.c
    return delete(task_run_wait).where(w.upstream_id == param("upstream_id")).returning(w.task_run_id)


def release_run() -> Executable:
    """Let a run be handed out that waits for nothing any more."""
    t, w = task_run.c, task_run_wait.c
    waits = exists().where(w.task_run_id == t.id)
    return (
        update(task_run)
        .where(
            t.id == param("id"),
            t.state_type == const(StateType.SCHEDULED),
            t.withheld == param("waits"),
            ~waits,
        )
        .values(withheld=None)
        .returning(t.id, t.task_key, t.priority, t.lane, t.due)
    )


def read_over() -> Executable:
    """Return the runs that others wait for although they have ended, or are gone."""
    w, t = task_run_wait.c, task_run.c
    lives = exists().where(t.id == w.upstream_id, ~one_of(t.state_type, FINAL))
    return select(w.upstream_id).where(~lives).distinct()


def read_upstream() -> Executable:
    """Return the runs that others wait for."""
    return select(task_run_wait.c.upstream_id).distinct()
