"""Statements on runs that wait and are not to be started any more."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateType

from ..tables import task_run
from .base import const, param


def _waits() -> ColumnElement[bool]:
    """As the partial index has it."""
    t = task_run.c
    return and_(t.state_type == const(StateType.SCHEDULED), t.withheld.is_(None), t.expires.is_not(None))


def expired_runs() -> Executable:
    """Return the ids of runs that expired first."""
    t = task_run.c
    expired = select(t.id).where(_waits(), t.expires <= param("now"))
    return expired.order_by(t.expires, t.id).limit(param("limit"))


def next_expiry() -> Executable:
    """Return when the first run that waits expires; null if none does."""
    return select(func.min(task_run.c.expires)).where(_waits())
