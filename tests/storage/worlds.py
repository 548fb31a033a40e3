"""Databases full of runs of all kinds, and what lists should make of them: in plain Python, row by row."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from runlane.protocol.ids import uuid7
from runlane.protocol.states import FINAL, StateType, default_name
from runlane_broker.clock import to_datetime, to_micros
from runlane_broker.schemas.filters import Filters
from runlane_broker.storage.tables import metadata

from ..support import SECOND, START

Row = dict[str, Any]

NAMES: Final = ("a", "ab", "Ab", "b", "x_y", "xzy", "50%", "500", "back\\slash", "AB%c", "")
PATTERNS: Final = (
    "a",
    "B",
    "%",
    "_",
    "x\\_y",
    "x_y",
    "0\\%",
    "\\\\s",
    "\\",
    "a%c",
    "'; DROP TABLE task_run; --",
    "",
)
TAGS: Final = ("red", "green", "Red", '"', "a,b", "ä")
STATE_NAMES: Final = (*(default_name(type_) for type_ in StateType), "Late", "AwaitingRetry")


@dataclass(frozen=True)
class World:
    """All rows of all tables that lists are made from."""

    flows: list[Row]
    flow_runs: list[Row]
    task_runs: list[Row]
    deployments: list[Row]
    work_pools: list[Row]
    work_queues: list[Row]
    others: dict[str, list[Row]]

    @property
    def tables(self) -> dict[str, list[Row]]:
        """Rows by table, parents first."""
        return {
            "work_pool": self.work_pools,
            "work_queue": self.work_queues,
            "flow": self.flows,
            "deployment": self.deployments,
            "flow_run": self.flow_runs,
            "task_run": self.task_runs,
            **self.others,
        }


def make_world(seed: int, runs: int = 60) -> World:
    """Return rows at random, each in its own way full of gaps."""
    return _Maker(random.Random(seed)).world(runs)


class _Maker:
    def __init__(self, source: random.Random) -> None:
        self.source = source

    def maybe(self, choices: Sequence[Any], chance: float = 0.6) -> Any:
        return self.source.choice(choices) if choices and self.source.random() < chance else None

    def id(self) -> str:
        return uuid7(self.source.randrange(10**15), self.source.getrandbits(62))

    def time(self) -> int:
        """Few times, so that they meet."""
        return START + self.source.randrange(-8, 8) * SECOND // 2

    def tags(self) -> str:
        return msgspec.json.encode(self.source.sample(TAGS, self.source.choice((0, 0, 1, 2, 3)))).decode()

    def row(self, table: str, **values: Any) -> Row:
        """Fill the columns that nothing here is about."""
        known = {
            "id": self.id(),
            "name": self.source.choice(NAMES),
            "created": self.time(),
            "updated": self.time(),
        }
        row: Row = {}
        for column in metadata.tables[table].columns:
            blank: Any = None if column.nullable else _BLANK[column.type.python_type]
            row[column.name] = values.get(column.name, known.get(column.name, blank))
        assert values.keys() <= row.keys()
        return row

    def world(self, runs: int) -> World:
        pick = self.source.choice
        pools = [self.row("work_pool", name=f"pool-{i}", type=pick(("process", "docker"))) for i in range(3)]
        queues = [
            self.row(
                "work_queue",
                name=f"{pick(('Queue', 'queue', 'qu%'))}-{i}",
                work_pool_id=pick(pools)["id"],
                priority=i + 1,
                status="READY",
            )
            for i in range(6)
        ]
        flows = [self.row("flow", name=f"{pick(NAMES)}{i}", tags=self.tags(), labels="{}") for i in range(8)]
        deployments = [self.deployment(flows, queues, i) for i in range(10)]
        flow_runs = [self.flow_run(flows, deployments, queues) for _ in range(runs)]
        task_runs = [self.task_run(flow_runs) for _ in range(runs)]
        for run in flow_runs:
            run["parent_task_run_id"] = self.maybe([*(r["id"] for r in task_runs), self.id()], 0.4)
        others = {**self.belongings("flow_run", flow_runs), **self.belongings("task_run", task_runs)}
        return World(flows, flow_runs, task_runs, deployments, pools, queues, others)

    def deployment(self, flows: list[Row], queues: list[Row], number: int) -> Row:
        queue = self.maybe(queues)
        return self.row(
            "deployment",
            flow_id=self.source.choice(flows[:5])["id"],
            name=f"{self.source.choice(NAMES)}{number}",
            tags=self.tags(),
            labels="{}",
            paused=self.source.random() < 0.5,
            concurrency_limit=self.maybe(range(5)),
            work_queue_id=queue and queue["id"],
            work_queue_name=queue and queue["name"],
        )

    def flow_run(self, flows: list[Row], deployments: list[Row], queues: list[Row]) -> Row:
        queue = self.maybe(queues)
        return self.run(
            "flow_run",
            flow_id=self.source.choice(flows)["id"],
            deployment_id=self.maybe([deployment["id"] for deployment in deployments]),
            work_queue_id=queue and queue["id"],
            work_queue_name=queue and queue["name"],
            flow_version=self.maybe(("1", "2", "v'")),
        )

    def task_run(self, flow_runs: list[Row]) -> Row:
        return self.run(
            "task_run",
            task_key=self.source.choice(("k", "l", "m")),
            flow_run_id=self.maybe([run["id"] for run in flow_runs]),
            payload_hash=b"",
            headers="{}",
        )

    def run(self, table: str, **values: Any) -> Row:
        type_ = self.source.choice(list(StateType))
        times = {
            name: self.maybe([self.time()], 0.8) for name in ("expected_start_time", "start_time", "end_time")
        }
        id_ = self.id()
        return self.row(
            table,
            id=id_,
            state_type=type_.value,
            state_name=self.source.choice((default_name(type_), *STATE_NAMES[-2:])),
            state_id=self.id(),
            state_timestamp=self.time(),
            due=self.time(),
            total_run_time=self.source.randrange(3 * SECOND),
            tags=self.tags(),
            labels="{}",
            retry_delay="[0.0]",
            idempotency_key=self.maybe([f"key-{id_}"], 0.5),
            **times,
            **({"dynamic_key": id_} if table == "task_run" else {}),
            **values,
        )

    def belongings(self, table: str, runs: list[Row]) -> dict[str, list[Row]]:
        """States and payloads."""
        states = [
            self.row(
                f"{table}_state",
                id=run["state_id"],
                type=run["state_type"],
                name=run["state_name"],
                timestamp=run["state_timestamp"],
                **{f"{table}_id": run["id"]},
            )
            for run in runs
        ]
        payloads = [self.row(f"{table}_payload", **{f"{table}_id": run["id"]}) for run in runs]
        return {f"{table}_state": states, f"{table}_payload": payloads}


_BLANK: Final[Mapping[type, Any]] = {str: "", int: 0, float: 0.0, bytes: b"", bool: False}


# Filters -----------------------------------------------------------------------------------------------------


def rows_that_match(world: World, group: str, filters: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a group that JSON filters take."""
    return [row for row in getattr(world, group) if _Asked(world, filters).matches(group, row)]


def decode_filters(filters: Mapping[str, Any]) -> Filters:
    """Return JSON filters as they come in."""
    return msgspec.convert(msgspec.json.decode(msgspec.json.encode(filters)), Filters)


#: Which rows of another group belong to a row, by the group that is listed.
Related = Callable[[World, Row], list[Row]]


def _by(group: str, mine: str, theirs: str) -> Related:
    return lambda world, row: [r for r in getattr(world, group) if r[mine] is not None and r[mine] == row[theirs]]


_QUEUES_OF: Final = {"work_queues": (_by("work_queues", "id", "work_queue_id"), ("work_pools",))}
_OF_FLOW_RUN: Final = {
    "flows": (_by("flows", "id", "flow_id"), ()),
    "deployments": (_by("deployments", "id", "deployment_id"), ()),
    **_QUEUES_OF,
}
#: For each list: the groups beside its own, how to get to their rows, and through which.
PATHS: Final[Mapping[str, Any]] = {
    "task_runs": {"flow_runs": (_by("flow_runs", "id", "flow_run_id"), _OF_FLOW_RUN)},
    "flow_runs": {**_OF_FLOW_RUN, "task_runs": (_by("task_runs", "flow_run_id", "id"), ())},
    "flows": {
        "flow_runs": (
            _by("flow_runs", "flow_id", "id"),
            {"task_runs": (_by("task_runs", "flow_run_id", "id"), ())},
        ),
        "deployments": (_by("deployments", "flow_id", "id"), _QUEUES_OF),
    },
    "deployments": {
        "flows": (_by("flows", "id", "flow_id"), ()),
        "flow_runs": (
            _by("flow_runs", "deployment_id", "id"),
            {"task_runs": (_by("task_runs", "flow_run_id", "id"), ())},
        ),
        **_QUEUES_OF,
    },
    "work_queues": {"work_pools": (_by("work_pools", "id", "work_pool_id"), ())},
    "work_pools": {"work_queues": (_by("work_queues", "work_pool_id", "id"), ())},
}
_POOLS: Final = {"work_pools": (_by("work_pools", "id", "work_pool_id"), ())}


class _Asked:
    def __init__(self, world: World, filters: Mapping[str, Any]) -> None:
        self.world = world
        self.filters = filters

    def matches(self, group: str, row: Row) -> bool:
        return self._tree(group, row, PATHS[group])

    def _tree(self, group: str, row: Row, paths: Any) -> bool:
        if not self._group(group, row):
            return False
        for below, (related, further) in self._paths(paths).items():
            deeper = self._paths(further)
            if self._says(below, deeper) and not any(
                self._tree(below, other, deeper) for other in related(self.world, row)
            ):
                return False
        return True

    def _paths(self, paths: Any) -> Mapping[str, Any]:
        return _POOLS if paths == ("work_pools",) else dict(paths)

    def _says(self, group: str, deeper: Mapping[str, Any]) -> bool:
        asked = self.filters.get(group) or {}
        own = any(_says_something(name, asked[name]) for name in asked if name != "operator")
        return own or any(self._says(below, self._paths(further)) for below, (_, further) in deeper.items())

    def _group(self, group: str, row: Row) -> bool:
        asked = self.filters.get(group) or {}
        answers = [
            self._field(group, name, part, row)
            for name, part in asked.items()
            if name != "operator" and _says_something(name, part)
        ]
        return _combine(asked, answers)

    def _field(self, group: str, name: str, part: Any, row: Row) -> bool:
        if name == "state":
            parts = [
                _combine({}, _ask(asked, row[f"state_{which}"]))
                for which, asked in part.items()
                if which != "operator" and _says_something(which, asked)
            ]
            return _combine(part, parts)
        special = getattr(self, f"_{group}_{name}", None)
        answers = special(part, row) if special else _ask(part, self._value(name, row))
        return _combine(part, answers)

    def _value(self, name: str, row: Row) -> Any:
        return msgspec.json.decode(row["tags"]) if name == "tags" else row[name]

    def _flows_deployment(self, part: Any, row: Row) -> list[bool]:
        none = not any(d["flow_id"] == row["id"] for d in self.world.deployments)
        return [none is part["is_null_"]]

    def _flow_runs_start_time(self, part: Any, row: Row) -> list[bool]:
        started = row["start_time"]
        shown = row["expected_start_time"] if started is None else started
        null = {name: value for name, value in part.items() if name == "is_null_"}
        return [*_ask({**part, "is_null_": None}, shown), *_ask(null, started)]

    def _flow_runs_next_scheduled_start_time(self, part: Any, row: Row) -> list[bool]:
        return _ask(part, row["due"] if row["state_type"] == "SCHEDULED" else None)

    def _flow_runs_parent_flow_run_id(self, part: Any, row: Row) -> list[bool]:
        parents = [r["flow_run_id"] for r in self.world.task_runs if r["id"] == row["parent_task_run_id"]]
        return [any(parent in part["any_"] for parent in parents if parent is not None)]

    def _flow_runs_created_by(self, part: Any, row: Row) -> list[bool]:
        asked = [("any_" if name in {"id_", "type_"} else name, value) for name, value in part.items()]
        return [answer for name, value in asked for answer in _ask({name: value}, None)]

    def _task_runs_subflow_runs(self, part: Any, row: Row) -> list[bool]:
        children = [r for r in self.world.flow_runs if r["parent_task_run_id"] == row["id"]]
        return [bool(children) is part["exists_"]]

    def _task_runs_flow_run_id(self, part: Any, row: Row) -> list[bool]:
        flow_run_id = row["flow_run_id"]
        if part.get("any_") is None:
            return [(flow_run_id is None) is bool(part.get("is_null_"))]
        return _ask(part, flow_run_id)

    def _deployments_flow_or_deployment_name(self, part: Any, row: Row) -> list[bool]:
        (flow,) = [flow for flow in self.world.flows if flow["id"] == row["flow_id"]]
        return [_like(part["like_"], row["name"]) or _like(part["like_"], flow["name"])]


def _says_something(name: str, part: Any) -> bool:
    if part is None:
        return False
    if name == "flow_run_id":
        return True
    if name == "state":
        return any(_says_something("", part.get(which)) for which in ("type", "name"))
    return any(
        value is not None and not (operator in {"not_any_", "all_"} and not value)
        for operator, value in part.items()
        if operator != "operator"
    )


def _combine(asked: Mapping[str, Any], answers: list[bool]) -> bool:
    if not answers:
        return True
    return any(answers) if asked.get("operator") == "or_" else all(answers)


def _ask(part: Mapping[str, Any], value: Any) -> list[bool]:
    said = {name: wanted for name, wanted in part.items() if wanted is not None and name != "operator"}
    return [
        _OPERATORS[name](value, wanted)
        for name, wanted in said.items()
        if not (name in {"not_any_", "all_"} and not wanted)
    ]


def _any(value: Any, wanted: list[Any]) -> bool:
    return bool(set(value) & set(wanted)) if isinstance(value, list) else value in wanted


def _like(pattern: str, value: str) -> bool:
    parts = re.findall(r"\\.|.", f"%{pattern}%", re.DOTALL)
    expression = "".join({"%": ".*", "_": "."}.get(part, re.escape(part[-1])) for part in parts)
    return re.fullmatch(expression, value, re.DOTALL | re.IGNORECASE) is not None


def _micros(text: str) -> int:
    return to_micros(datetime.fromisoformat(text))


_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "any_": _any,
    "not_any_": lambda value, wanted: value is not None and value not in wanted,
    "all_": lambda value, wanted: set(value) >= set(wanted),
    "is_null_": lambda value, wanted: (value is None or value == []) is wanted,
    "like_": lambda value, wanted: _like(wanted, value),
    "startswith_": lambda value, wanted: any(value.lower().startswith(start.lower()) for start in wanted),
    "before_": lambda value, wanted: value is not None and value <= _micros(wanted),
    "after_": lambda value, wanted: value is not None and value >= _micros(wanted),
    "ge_": lambda value, wanted: value is not None and value >= wanted,
    "le_": lambda value, wanted: value is not None and value <= wanted,
    "eq_": lambda value, wanted: value is wanted,
}


# History -----------------------------------------------------------------------------------------------------


def count_by_hand(
    rows: Sequence[Row], start: int, interval: int, bars: int, now: int
) -> list[dict[tuple[str, str], tuple[int, int, int]]]:
    """Return for each bar the count and both sums by state."""
    found: list[dict[tuple[str, str], tuple[int, int, int]]] = [{} for _ in range(bars)]
    for row in rows:
        expected, started = row["expected_start_time"], row["start_time"]
        if expected is None or not start <= expected < start + bars * interval:
            continue
        running = row["state_type"] == "RUNNING" and now > row["state_timestamp"]
        run_time = row["total_run_time"] + (now - row["state_timestamp"] if running else 0)
        ended = started is None and row["state_type"] in FINAL
        late = 0 if ended else (now if started is None else started) - expected
        bar = found[(expected - start) // interval]
        state = (row["state_type"], row["state_name"])
        count, total, lateness = bar.get(state, (0, 0, 0))
        bar[state] = (count + 1, total + max(run_time, 0), lateness + max(late, 0))
    return found


def text_of(micros: int) -> str:
    """Return a time as it is written in a filter."""
    return to_datetime(micros).isoformat()
