"""Filters as SQL: the declarations of `schemas.filters` over the tables.

A field that has no builder of its own is the column of its name (a field of `state` is `state_…`). Values are
parameters, but for types of states, which stand in the text: partial indexes are found by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from sqlalchemy import ColumnElement, Table, Text, and_, cast, distinct, false, func, null, or_, select

from runlane.protocol.states import StateType

from ..clock import to_micros
from ..schemas import filters as f
from .json_texts import json_texts
from .queries.base import ONE, const, one_of
from .tables import deployment, flow, flow_run, task_run, work_pool, work_queue

Condition: TypeAlias = ColumnElement[bool]
Column: TypeAlias = ColumnElement[Any]
Operator: TypeAlias = Callable[[Column, Any], Condition | None]
#: Makes conditions of what is asked of one field.
Builder: TypeAlias = Callable[[Any], list[Condition]]

_ESCAPE: Final = "\\"
_SCHEDULED: Final = const(StateType.SCHEDULED)


# Operators ---------------------------------------------------------------------------------------------------


def _is_null(column: Column, value: bool) -> Condition:
    return column.is_(None) if value else column.is_not(None)


def _like(column: Column, value: str) -> Condition:
    return column.ilike(f"%{value}%", escape=_ESCAPE)


def _starts_with(column: Column, values: Sequence[str]) -> Condition:
    return or_(false(), *(column.istartswith(value, autoescape=True, escape=_ESCAPE) for value in values))


def _any_text(column: Column, values: Sequence[Any]) -> Condition:
    """Lists of ids come as UUIDs, and stand in the tables as text."""
    return column.in_([str(value) for value in values])


def _not_any_text(column: Column, values: Sequence[Any]) -> Condition | None:
    return column.not_in([str(value) for value in values]) if values else None


#: What each operator asks of a column. None: nothing.
OPERATORS: Final[Mapping[str, Operator]] = {
    "any_": _any_text,
    "not_any_": _not_any_text,
    "is_null_": _is_null,
    "like_": _like,
    "startswith_": _starts_with,
    "before_": lambda column, value: column <= to_micros(value),
    "after_": lambda column, value: column >= to_micros(value),
    "ge_": lambda column, value: column >= value,
    "le_": lambda column, value: column <= value,
    "eq_": lambda column, value: column.is_(value),
    "id_": _any_text,
    "type_": _any_text,
}


def _all_tags(tags: Column, values: Sequence[str]) -> Condition | None:
    if not values:
        return None
    found = json_texts(tags)
    count = select(func.count(distinct(found.c.value))).where(found.c.value.in_(values))
    return count.scalar_subquery() == len(set(values))


def _any_tag(tags: Column, values: Sequence[str]) -> Condition:
    found = json_texts(tags)
    return select(ONE).select_from(found).where(found.c.value.in_(values)).exists()


#: The same of a column of tags.
TAG_OPERATORS: Final[Mapping[str, Operator]] = {
    "all_": _all_tags,
    "any_": _any_tag,
    "is_null_": lambda tags, value: tags == "[]" if value else tags != "[]",
}


def _any_state(column: Column, values: Sequence[StateType]) -> Condition:
    return one_of(column, values)


def _not_any_state(column: Column, values: Sequence[StateType]) -> Condition | None:
    return one_of(column, set(StateType) - set(values)) if values else None


STATE_OPERATORS: Final[Mapping[str, Operator]] = {"any_": _any_state, "not_any_": _not_any_state}


# Fields ------------------------------------------------------------------------------------------------------


def _of_column(column: Column, operators: Mapping[str, Operator] = OPERATORS, **others: Column) -> Builder:
    """Ask a column; `others` are asked instead of it by the operators of their names."""

    def build(asked: Any) -> list[Condition]:
        found = (operators[name](others.get(name, column), value) for name, value in _said(asked))
        return [condition for condition in found if condition is not None]

    return build


def _state(table: Table) -> Builder:
    type_ = _of_column(table.c.state_type, STATE_OPERATORS)
    name = _of_column(table.c.state_name)

    def build(asked: f.State | f.StateOrNot) -> list[Condition]:
        parts = [type_(asked.type) if asked.type else [], name(asked.name) if asked.name else []]
        return [and_(*part) for part in parts if part]

    return build


def _task_key(asked: f.AnyOf[str]) -> list[Condition]:
    """Name all types of states, too: the index by task key begins with them."""
    keys = _of_column(task_run.c.task_key)(asked)
    return [and_(one_of(task_run.c.state_type, StateType), *keys)] if keys else []


def _subflow_runs(asked: f.Exists) -> list[Condition]:
    child = flow_run.alias()
    exists = select(ONE).where(child.c.parent_task_run_id == task_run.c.id).correlate_except(child).exists()
    return [] if asked.exists_ is None else [exists if asked.exists_ else ~exists]


def _of_flow_run(asked: f.OfFlowRun) -> list[Condition]:
    column = task_run.c.flow_run_id
    if asked.any_ is not None:
        return _of_column(column)(asked)
    return [_is_null(column, bool(asked.is_null_))]


def _parent_flow_run(asked: f.AnyFlowRun) -> list[Condition]:
    if asked.any_ is None:
        return []
    parent = task_run.alias()
    ids = select(parent.c.id).where(_any_text(parent.c.flow_run_id, asked.any_))
    return [flow_run.c.parent_task_run_id.in_(ids)]


def _has_no_deployment(asked: f.IsNull) -> list[Condition]:
    one = deployment.alias()
    exists = select(ONE).where(one.c.flow_id == flow.c.id).correlate_except(one).exists()
    return [] if asked.is_null_ is None else [~exists if asked.is_null_ else exists]


def _next_start(asked: f.Between) -> list[Condition]:
    conditions = _of_column(flow_run.c.due)(asked)
    return [and_(flow_run.c.state_type == _SCHEDULED, *conditions)] if conditions else []


def _flow_or_deployment_name(asked: f.Like) -> list[Condition]:
    if asked.like_ is None:
        return []
    flows = flow.alias()
    of_flow = deployment.c.flow_id.in_(select(flows.c.id).where(_like(flows.c.name, asked.like_)))
    return [or_(_like(deployment.c.name, asked.like_), of_flow)]


_EXPECTED: Final = func.coalesce(flow_run.c.start_time, flow_run.c.expected_start_time)


@dataclass(frozen=True, slots=True)
class Source:
    """A table to list from, the filters that are asked of it, and what else is there by its rows.

    `indexed` fields are those by which rows can be found.
    The rows of one below belong to those above where their `mine` is the `theirs` of these.
    """

    table: Table
    group: str
    builders: Mapping[str, Builder]
    indexed: frozenset[str] = frozenset()
    below: tuple[Source, ...] = ()
    mine: Column | None = None
    theirs: Column | None = None

    def over(self, *below: Source) -> Source:
        """Return the same with these below it."""
        return replace(self, below=below)

    def by(self, mine: Column, theirs: Column) -> Source:
        """Return the same below another, to whose rows these columns tie it."""
        return replace(self, mine=mine, theirs=theirs)

    def builder(self, name: str) -> Builder:
        """Return the builder of a field."""
        return self.builders.get(name) or _of_column(self.table.c[name])


_FLOW: Final = Source(
    flow,
    "flows",
    {"deployment": _has_no_deployment, "tags": _of_column(flow.c.tags, TAG_OPERATORS)},
)
_FLOW_RUN: Final = Source(
    flow_run,
    "flow_runs",
    {
        "tags": _of_column(flow_run.c.tags, TAG_OPERATORS),
        "state": _state(flow_run),
        "start_time": _of_column(flow_run.c.start_time, before_=_EXPECTED, after_=_EXPECTED),
        "next_scheduled_start_time": _next_start,
        "parent_flow_run_id": _parent_flow_run,
        "created_by": _of_column(cast(null(), Text)),
    },
)
_TASK_RUN: Final = Source(
    task_run,
    "task_runs",
    {
        "tags": _of_column(task_run.c.tags, TAG_OPERATORS),
        "state": _state(task_run),
        "task_key": _task_key,
        "subflow_runs": _subflow_runs,
        "flow_run_id": _of_flow_run,
    },
    frozenset({"state", "task_key", "name"}),
)
_DEPLOYMENT: Final = Source(
    deployment,
    "deployments",
    {
        "tags": _of_column(deployment.c.tags, TAG_OPERATORS),
        "flow_or_deployment_name": _flow_or_deployment_name,
    },
)
_WORK_POOL: Final = Source(work_pool, "work_pools", {})
_WORK_QUEUE: Final = Source(work_queue, "work_queues", {})
_QUEUES: Final = _WORK_QUEUE.over(_WORK_POOL.by(work_pool.c.id, work_queue.c.work_pool_id))


_OF_FLOW_RUN: Final = (
    _FLOW.by(flow.c.id, flow_run.c.flow_id),
    _DEPLOYMENT.by(deployment.c.id, flow_run.c.deployment_id),
    _QUEUES.by(work_queue.c.id, flow_run.c.work_queue_id),
)
_TASK_RUNS_OF: Final = _TASK_RUN.by(task_run.c.flow_run_id, flow_run.c.id)

#: What lists are made from. On task runs the filters of flows and the like are asked of the flow run.
TASK_RUNS: Final = _TASK_RUN.over(_FLOW_RUN.over(*_OF_FLOW_RUN).by(flow_run.c.id, task_run.c.flow_run_id))
FLOW_RUNS: Final = _FLOW_RUN.over(*_OF_FLOW_RUN, _TASK_RUNS_OF)
FLOWS: Final = _FLOW.over(
    _FLOW_RUN.over(_TASK_RUNS_OF).by(flow_run.c.flow_id, flow.c.id),
    _DEPLOYMENT.over(_QUEUES.by(work_queue.c.id, deployment.c.work_queue_id)).by(deployment.c.flow_id, flow.c.id),
)
DEPLOYMENTS: Final = _DEPLOYMENT.over(
    _FLOW.by(flow.c.id, deployment.c.flow_id),
    _FLOW_RUN.over(_TASK_RUNS_OF).by(flow_run.c.deployment_id, deployment.c.id),
    _QUEUES.by(work_queue.c.id, deployment.c.work_queue_id),
)
WORK_POOLS: Final = _WORK_POOL.over(_WORK_QUEUE.by(work_queue.c.work_pool_id, work_pool.c.id))
WORK_QUEUES: Final = _QUEUES


# Conditions --------------------------------------------------------------------------------------------------


def conditions(source: Source, filters: f.Filters) -> list[Condition]:
    """Return what the rows of a source have to meet."""
    asked = getattr(filters, source.group)
    found = [] if asked is None else _of_group(source, asked)
    for below in source.below:
        inner = conditions(below, filters)
        if inner:
            found.append(_exists(below, inner, filters))
    return found


def driving(source: Source, filters: f.Filters) -> list[Condition]:
    """Return those of the conditions by which rows can be found."""
    asked = getattr(filters, source.group)
    return [] if asked is None or asked.operator == "or_" else _of_group(source, asked, source.indexed)


def _of_group(source: Source, asked: f.Combined, only: frozenset[str] | None = None) -> list[Condition]:
    """Return at most one condition: what a whole group asks, or `only` some of its fields."""
    found: list[Condition] = []
    for name, part in _said(asked):
        if only is not None and name not in only:
            continue
        built = source.builder(name)(part)
        if built:
            found.append(_combined(part, built))
    return [_combined(asked, found)] if found else []


def _combined(asked: Any, found: list[Condition]) -> Condition:
    return or_(*found) if getattr(asked, "operator", None) == "or_" else and_(*found)


def _exists(below: Source, inner: list[Condition], filters: f.Filters) -> Condition:
    """Return that there is a row below, or that it is one of these, if only ids are asked for."""
    assert below.mine is not None
    assert below.theirs is not None
    ids = _only_ids(getattr(filters, below.group))
    if ids is not None and below.mine is below.table.c.id and not any(conditions(b, filters) for b in below.below):
        return _any_text(below.theirs, ids)
    return select(ONE).where(below.mine == below.theirs, *inner).correlate_except(below.table).exists()


def _only_ids(asked: Any) -> Sequence[Any] | None:
    """Return the ids that a group asks for, if it asks for nothing else."""
    said = [] if asked is None else list(_said(asked))
    if [name for name, _ in said] != ["id"]:
        return None
    operators = list(_said(said[0][1]))
    return operators[0][1] if [name for name, _ in operators] == ["any_"] else None


def _said(asked: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields that say something."""
    for name in asked.__struct_fields__:
        value = getattr(asked, name)
        if value is not None and name != "operator":
            yield name, value
