"""Filters at random, as they come in over HTTP, and a store's reading over one connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final, get_origin

import msgspec
from hypothesis import strategies as st
from msgspec import inspect
from sqlalchemy import Connection, StaticPool, create_engine

from runlane.protocol.states import StateType
from runlane_broker.schemas import filters as f
from runlane_broker.storage.tables import metadata

from ..support import SECOND, START
from .worlds import NAMES, PATTERNS, STATE_NAMES, TAGS, World, make_world, text_of

GROUPS: Final[dict[str, type[msgspec.Struct]]] = {
    "flows": f.FlowFilter,
    "flow_runs": f.FlowRunFilter,
    "task_runs": f.TaskRunFilter,
    "deployments": f.DeploymentFilter,
    "work_pools": f.WorkPoolFilter,
    "work_queues": f.WorkQueueFilter,
}


def fields_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return a filter's fields and the structs that they hold."""
    info: Any = inspect.type_info(struct)
    return {part.name: _struct(part.type) for part in info.fields if part.name != "operator"}


def operators_of(struct: type[msgspec.Struct]) -> list[str]:
    """Return the operators of a field; of `state` those of both its parts."""
    info: Any = inspect.type_info(struct)
    return [part.name for part in info.fields if part.name != "operator"]


def _struct(type_: Any) -> Any:
    while isinstance(type_, inspect.Metadata):
        type_ = type_.type
    if isinstance(type_, inspect.UnionType):
        return next((found for part in type_.types if (found := _struct(part)) is not None), None)
    return type_.cls if isinstance(type_, inspect.StructType) else None


# Values ------------------------------------------------------------------------------------------------------


class Values:
    """What may be asked, of a world: mostly of what is there, and sometimes of what is not."""

    def __init__(self, world: World) -> None:
        ids = {group: [row["id"] for row in getattr(world, group)] for group in GROUPS}
        names = {group: [row["name"] for row in getattr(world, group)] for group in GROUPS}
        keys = [run["idempotency_key"] for run in world.flow_runs if run["idempotency_key"]]
        self._ids, self._names, self._keys = ids, names, keys

    def of(self, group: str, field: str, operator: str) -> st.SearchStrategy[Any]:
        """Return values for one operator."""
        match operator:
            case "is_null_" | "exists_" | "eq_":
                return st.booleans()
            case "like_":
                return st.sampled_from(PATTERNS)
            case "before_" | "after_":
                return st.integers(-10, 10).map(lambda i: text_of(START + i * SECOND // 2))
            case "ge_" | "le_":
                return st.integers(0, 5)
            case _:
                return st.lists(self._one(group, field, operator), max_size=8)

    def _one(self, group: str, field: str, operator: str) -> st.SearchStrategy[str]:
        match field:
            case "id":
                return st.sampled_from([*self._ids[group], *self._ids["work_pools"]])
            case "name" if operator == "startswith_":
                return st.sampled_from(("Q", "queue", "qu%", "QU%-", "_", "\\", ""))
            case "name":
                return st.sampled_from([*self._names[group], *NAMES])
            case "tags":
                return st.sampled_from((*TAGS, "none"))
            case "type" if group in {"task_runs", "flow_runs"}:
                return st.sampled_from([type_.value for type_ in StateType])
            case "type":
                return st.sampled_from(("process", "docker", "x"))
            case "state_name":
                return st.sampled_from(STATE_NAMES)
            case "flow_run_id" | "parent_flow_run_id":
                return st.sampled_from(self._ids["flow_runs"])
            case "parent_task_run_id":
                return st.sampled_from(self._ids["task_runs"])
            case "deployment_id" | "created_by":
                return st.sampled_from(self._ids["deployments"])
            case "work_queue_name":
                return st.sampled_from([*self._names["work_queues"], "none"])
            case "flow_version":
                return st.sampled_from(("1", "2", "v'", "3"))
            case "idempotency_key":
                return st.sampled_from([*self._keys, "none"])
            case "task_key":
                return st.sampled_from(("k", "l", "n"))
            case _:
                raise AssertionError(f"{group}.{field} is new: say what may be asked of it")


def _with_operator(parts: dict[str, st.SearchStrategy[Any]], struct: Any) -> st.SearchStrategy[dict[str, Any]]:
    if "operator" not in (get_origin(struct) or struct).__struct_fields__:
        return st.fixed_dictionaries({}, optional=parts)
    return st.fixed_dictionaries({}, optional={**parts, "operator": st.sampled_from(("and_", "or_", None))})


def _field(values: Values, group: str, name: str, struct: Any) -> st.SearchStrategy[dict[str, Any]]:
    if name == "state":
        parts = {
            part: _field(values, group, "type" if part == "type" else "state_name", leaf)
            for part, leaf in fields_of(struct).items()
        }
        return _with_operator(parts, struct)
    parts = {operator: values.of(group, name, operator) for operator in operators_of(struct)}
    if name == "created_by":
        parts["type_"] = st.lists(st.sampled_from(("USER", "x")), max_size=2)
    return _with_operator({op: st.none() | value for op, value in parts.items()}, struct)


@cache
def values_of(seed: int) -> tuple[World, Values]:
    """Return a world and what may be asked of it."""
    world = make_world(seed)
    return world, Values(world)


@cache
def filters(values: Values) -> st.SearchStrategy[dict[str, Any]]:
    """Filters of some groups, of some of their fields."""
    groups: list[st.SearchStrategy[Any]] = []
    for group, struct in GROUPS.items():
        fields = [
            st.tuples(st.just(name), _field(values, group, name, leaf)) for name, leaf in fields_of(struct).items()
        ]
        operator = st.tuples(st.just("operator"), st.sampled_from(("and_", "or_")))
        parts = st.lists(st.one_of(*fields, operator), max_size=4)
        groups.append(st.tuples(st.just(group), parts.map(dict)))
    return st.lists(st.one_of(*groups), max_size=3).map(dict)


@cache
def one_of_each(values: Values) -> dict[tuple[str, str, str], st.SearchStrategy[Any]]:
    """Return everything that can be asked, by group, field and operator, with values for it."""
    found: dict[tuple[str, str, str], st.SearchStrategy[Any]] = {}
    for group, struct in GROUPS.items():
        for name, leaf in fields_of(struct).items():
            if name == "state":
                for part, inner in fields_of(leaf).items():
                    kind = "type" if part == "type" else "state_name"
                    for operator in operators_of(inner):
                        found[group, f"state.{part}", operator] = values.of(group, kind, operator)
                continue
            for operator in operators_of(leaf):
                creator = operator == "type_"
                found[group, name, operator] = st.just(["USER"]) if creator else values.of(group, name, operator)
    return found


# Reading -----------------------------------------------------------------------------------------------------


class _Answering:
    """In place of an asynchronous connection: what is awaited of it is there at once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def execute(self, query: Any, values: Any = None) -> Any:
        return self._connection.execute(query, values)


def fill(connection: Connection, world: World) -> None:
    """Insert a world."""
    for name, rows in world.tables.items():
        connection.execute(metadata.tables[name].insert(), rows)


@cache
def reading_of(seed: int) -> Callable[[], Any]:
    """Return a way to read a world from a database in memory."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(engine)
    connection = engine.connect()
    fill(connection, make_world(seed))

    @asynccontextmanager
    async def reading() -> AsyncGenerator[Any]:
        yield _Answering(connection)

    return reading
