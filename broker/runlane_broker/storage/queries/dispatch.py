"""What fills a window: the first due runs of a key, and when the next one comes due."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Integer, and_, func, literal_column, select, union_all
from sqlalchemy.sql.base import Executable

from runlane.protocol.limits import MAX_PRIORITY
from runlane.protocol.states import StateType

from ..records import RETRY_LANE, SCHEDULED_LANE
from ..tables import task_run
from .base import const, param

#: Later than any due time.
NEVER: Final = 2**62


_RANGES: Final = tuple(
    (priority, lane) for priority in range(MAX_PRIORITY, -1, -1) for lane in (RETRY_LANE, SCHEDULED_LANE)
)


def _in_range(priority: int, lane: int) -> ColumnElement[bool]:
    t = task_run.c
    waiting = t.state_type == const(StateType.SCHEDULED), t.withheld.is_(None)
    level = literal_column(str(priority), Integer), literal_column(str(lane), Integer)
    return and_(t.task_key == param("task_key"), t.priority == level[0], t.lane == level[1], *waiting)


def _first_due() -> Executable:
    t = task_run.c
    ranges = [
        select(t.id, t.priority, t.lane, t.due)
        .where(_in_range(priority, lane), t.due <= param("now"))
        .order_by(t.due, t.id)
        .limit(param("limit"))
        .subquery()
        for priority, lane in _RANGES
    ]
    everything = union_all(*(select(r) for r in ranges)).subquery()
    return select(everything).limit(param("limit"))


def _next_due() -> Executable:
    t = task_run.c
    ranges = [
        select(func.coalesce(func.min(t.due), literal_column(str(NEVER), Integer)).label("due")).where(
            _in_range(priority, lane), t.due > param("now")
        )
        for priority, lane in _RANGES
    ]
    everything = union_all(*ranges).subquery()
    return select(func.min(everything.c.due))


#: The first `limit` runs of `task_key` that are due at `now`, in order. One index range per priority and lane: a
#: single range would read every future run of a high priority before it finds a due one of a lower.
FIRST_DUE: Final = _first_due()


#: When the first run of `task_key` after `now` comes due, or `NEVER`.
NEXT_DUE: Final = _next_due()


def first_due() -> Executable:
    """Return `FIRST_DUE`, for who compiles it once."""
    return FIRST_DUE


def next_due() -> Executable:
    """Return `NEXT_DUE`, for who compiles it once."""
    return NEXT_DUE
