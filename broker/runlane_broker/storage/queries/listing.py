"""Lists and counts: which rows, in which order. They give ids; what is shown of those is read afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Table, func, not_, select, tuple_

from runlane.protocol.states import StateType

from ..tables import flow_run, task_run
from .base import ONE, const


@dataclass(frozen=True, slots=True)
class Order:
    """By what a list is sorted. Rows that are not `present` have nothing to sort by, and come last, by id."""

    key: ColumnElement[Any]
    present: ColumnElement[bool] | None
    descending: bool


def _scheduled(table: Table) -> tuple[ColumnElement[Any], ColumnElement[bool]]:
    return table.c.due, table.c.state_type == const(StateType.SCHEDULED)


_STARTED: Final = func.coalesce(flow_run.c.start_time, flow_run.c.expected_start_time)
#: What is sorted by that is no column of that name, and when it is there.
_KEYS: Final[Mapping[tuple[Table, str], tuple[ColumnElement[Any], ColumnElement[bool]]]] = {
    (task_run, "next_scheduled_start_time"): _scheduled(task_run),
    (flow_run, "next_scheduled_start_time"): _scheduled(flow_run),
    (flow_run, "start_time"): (_STARTED, _STARTED.is_not(None)),
}


def order_of(table: Table, sort: StrEnum) -> Order:
    """Return the order that a sort's name says: a column, and ASC or DESC."""
    name, _, direction = sort.value.lower().rpartition("_")
    descending = direction == "desc"
    if (table, name) in _KEYS:
        return Order(*_KEYS[table, name], descending)
    column = table.c[name]
    return Order(column, column.is_not(None) if column.nullable else None, descending)


def count_rows(table: Table, conditions: Sequence[ColumnElement[bool]]) -> Select[int]:
    """Count the rows that meet the conditions."""
    return select(func.count()).select_from(table).where(*conditions)


def count_up_to(table: Table, conditions: Sequence[ColumnElement[bool]], most: int) -> Select[int]:
    """Count the rows that meet the conditions, but no further than `most`."""
    some = select(ONE).select_from(table).where(*conditions).limit(most).subquery()
    return select(func.count()).select_from(some)


def page_present(
    table: Table, conditions: Sequence[ColumnElement[bool]], order: Order, after: tuple[Any, str] | None = None
) -> Select[*tuple[Any, ...]]:
    """Return keys and ids of the rows that have something to sort by; `after` a key and id, those behind."""
    id_ = table.c.id
    query = select(order.key.label("key"), id_.label("id")).where(*conditions)
    if order.present is not None:
        query = query.where(order.present)
    if order.key is id_:
        return query.where(*_behind(id_, after and after[1], order)).order_by(_directed(id_, order))
    if after is not None:
        place, last = tuple_(order.key, id_), tuple_(*after)
        query = query.where(place < last if order.descending else place > last)
    return query.order_by(_directed(order.key, order), _directed(id_, order))


def page_absent(
    table: Table, conditions: Sequence[ColumnElement[bool]], order: Order, after: str | None = None
) -> Select[*tuple[Any, ...]]:
    """Return the ids of the other rows; `after` an id, those behind."""
    assert order.present is not None
    id_ = table.c.id
    query = select(id_.label("id")).where(*conditions, not_(order.present), *_behind(id_, after, order))
    return query.order_by(_directed(id_, order))


def _behind(id_: ColumnElement[str], after: str | None, order: Order) -> list[ColumnElement[bool]]:
    return [] if after is None else [id_ < after if order.descending else id_ > after]


def _directed(column: ColumnElement[Any], order: Order) -> ColumnElement[Any]:
    return column.desc() if order.descending else column.asc()
