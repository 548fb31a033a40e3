"""Filters, sorts, cursors and history: the SQL says what plain Python says."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlane_broker.errors import Invalid
from runlane_broker.schemas import filters as f
from runlane_broker.schemas.sorts import DeploymentSort, FlowRunSort, FlowSort, TaskRunSort
from runlane_broker.storage.filters import FLOW_RUNS, FLOWS, TASK_RUNS, WORK_POOLS, WORK_QUEUES, Source, conditions
from runlane_broker.storage.history import MAX_BARS
from runlane_broker.storage.listing import Listing
from runlane_broker.storage.lists import Lists
from runlane_broker.storage.rows import flow_run_record, task_run_record
from runlane_broker.storage.runs import RunReader
from runlane_broker.storage.tables import FLOW_RUN, TASK_RUN

from ..support import SECOND, START
from .lists import GROUPS, filters, one_of_each, reading_of, values_of
from .worlds import count_by_hand, decode_filters, rows_that_match, text_of

SEEDS = st.integers(0, 2)
LISTS = st.sampled_from(("task_runs", "flow_runs", "flows", "deployments"))
quick = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def listing(seed: int, group: str) -> Listing[Any]:
    reading = reading_of(seed)
    if group == "task_runs":
        return RunReader(TASK_RUN, reading, task_run_record)
    if group == "flow_runs":
        return RunReader(FLOW_RUN, reading, flow_run_record)
    return getattr(Lists(reading), group)


def ids_of(records: list[Any]) -> list[str]:
    return [record.id for record in records]


# --- Filters ------------------------------------------------------------------------------------------------


@quick
@given(st.data())
def test_any_filters_take_the_rows_that_plain_python_takes(data: st.DataObject) -> None:
    seed, group = data.draw(SEEDS), data.draw(LISTS)
    world, values = values_of(seed)
    asked = data.draw(filters(values))
    expected = sorted(row["id"] for row in rows_that_match(world, group, asked))
    source = listing(seed, group)
    assert sorted(ids_of(asyncio.run(source.list(decode_filters(asked), limit=1000)))) == expected
    assert asyncio.run(source.count(decode_filters(asked))) == len(expected)


CASES = list(one_of_each(values_of(0)[1]))


def nested(group: str, field: str, part: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(field.split(".")):
        part = {name: part}
    return {group: part}


@pytest.mark.parametrize(("group", "field", "operator"), CASES, ids=[".".join(case) for case in CASES])
@settings(quick, max_examples=8)
@given(data=st.data())
def test_every_operator_of_every_field(group: str, field: str, operator: str, data: st.DataObject) -> None:
    seed = data.draw(SEEDS)
    world, values = values_of(seed)
    asked = nested(group, field, {operator: data.draw(one_of_each(values)[group, field, operator])})
    sources: dict[str, Source] = {"work_pools": WORK_POOLS, "work_queues": WORK_QUEUES}
    for name in GROUPS:
        expected = sorted(row["id"] for row in rows_that_match(world, name, asked))
        if name in sources:
            found = asyncio.run(_ids(seed, sources[name], asked))
        else:
            found = ids_of(asyncio.run(listing(seed, name).list(decode_filters(asked), limit=1000)))
        assert sorted(found) == expected, name


async def _ids(seed: int, source: Source, asked: dict[str, Any]) -> list[str]:
    query = source.table.select().where(*conditions(source, decode_filters(asked)))
    async with reading_of(seed)() as connection:
        return [row.id for row in await connection.execute(query)]


def test_null_says_what_absence_says() -> None:
    nothing = {
        "operator": None,
        "id": {"any_": None},
        "name": None,
        "state": {"type": None, "name": {}},
        "tags": {},
    }
    for group, source in (("task_runs", TASK_RUNS), ("flow_runs", FLOW_RUNS), ("flows", FLOWS)):
        asked = {name: {k: v for k, v in nothing.items() if hasattr(GROUPS[name], k)} for name in GROUPS}
        assert conditions(source, decode_filters(asked)) == [], group


def test_an_empty_flow_run_id_asks_for_one() -> None:
    world, _ = values_of(0)
    asked: dict[str, Any] = {"task_runs": {"flow_run_id": {}}}
    found = asyncio.run(listing(0, "task_runs").list(decode_filters(asked), limit=1000))
    assert ids_of(found)
    assert set(ids_of(found)) == {run["id"] for run in world.task_runs if run["flow_run_id"] is not None}


REFUSED = [
    ({"task_runs": {"colour": {}}}, "unknown field `colour` - at `$.task_runs`"),
    ({"task_runs": {"id": {"like_": "x"}}}, "unknown field `like_` - at `$.task_runs.id`"),
    ({"flow_runs": {"operator": "xor_"}}, "Invalid enum value 'xor_' - at `$.flow_runs.operator`"),
    ({"flow_runs": {"id": {"any_": ["x"]}}}, "Invalid UUID - at `$.flow_runs.id.any_[0]`"),
    ({"flow_runs": {"state": {"type": {"any_": ["DONE"]}}}}, "'DONE' - at `$.flow_runs.state.type.any_[0]`"),
    ({"task_runs": {"name": {"any_": ["x"] * 501}}}, "length <= 500 - at `$.task_runs.name.any_`"),
    ({"task_runs": {"name": {"like_": "x" * 201}}}, "length <= 200 - at `$.task_runs.name.like_`"),
    ({"task_runs": {"name": {"any_": ["\0"]}}}, "at `$.task_runs.name.any_[0]`"),
    ({"task_runs": {"start_time": {"before_": "2030-01-01T00:00:00"}}}, "timezone component"),
    ({"deployments": {"concurrency_limit": {"ge_": 2**64}}}, "at `$.deployments.concurrency_limit.ge_`"),
    ({"work_queues": {"name": {"startswith_": "x"}}}, "Expected `array | null`"),
]


@pytest.mark.parametrize(("asked", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_cannot_be_asked_is_refused_by_name(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        decode_filters(asked)
    assert why in str(refused.value)


@settings(quick, max_examples=1)
@given(st.data())
def test_all_lists_at_their_longest_are_not_too_much_for_sqlite(data: st.DataObject) -> None:
    _, values = values_of(0)
    asked: dict[str, Any] = {group: {} for group in GROUPS}
    for (group, field, operator), strategy in one_of_each(values).items():
        sample = data.draw(strategy.filter(lambda value: value != []))
        most = f.MAX_STARTS if operator == "startswith_" else f.MAX_VALUES
        value = [sample[0]] * most if isinstance(sample, list) else sample
        part = asked[group]
        for name in field.split("."):
            part = part.setdefault(name, {})
        part[operator] = value
    for group in ("task_runs", "flow_runs", "flows", "deployments"):
        asyncio.run(listing(0, group).count(decode_filters(asked)))


# --- Sorts and cursors --------------------------------------------------------------------------------------

SORTS = {"task_runs": TaskRunSort, "flow_runs": FlowRunSort, "flows": FlowSort, "deployments": DeploymentSort}
ALL_SORTS = [(group, sort) for group, sorts in SORTS.items() for sort in sorts]


def sort_key(group: str, sort: str, row: dict[str, Any]) -> Any:
    name = sort.lower().rpartition("_")[0]
    if name == "next_scheduled_start_time":
        return row["due"] if row["state_type"] == "SCHEDULED" else None
    if name == "start_time" and row["start_time"] is None:
        return row["expected_start_time"]
    return row[name]


def in_order(group: str, sort: str, rows: list[dict[str, Any]]) -> list[str]:
    backwards = sort.endswith("_DESC")
    keyed = [(sort_key(group, sort, row), row["id"]) for row in rows]
    first = sorted((pair for pair in keyed if pair[0] is not None), reverse=backwards)
    rest = sorted((pair for pair in keyed if pair[0] is None), key=lambda pair: pair[1], reverse=backwards)
    return [id_ for _, id_ in first + rest]


@pytest.mark.parametrize(("group", "sort"), ALL_SORTS)
@settings(quick, max_examples=20)
@given(data=st.data())
def test_pages_by_offset_and_by_cursor_are_the_list_in_its_order(
    group: str, sort: Any, data: st.DataObject
) -> None:
    seed = data.draw(SEEDS)
    world, values = values_of(seed)
    asked = data.draw(st.just({}) | filters(values))
    expected = in_order(group, sort, rows_that_match(world, group, asked))
    source, decoded = listing(seed, group), decode_filters(asked)
    source.many = data.draw(st.sampled_from((0, 20, 1000)))
    limit, offset = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 70))
    found = ids_of(asyncio.run(source.list(decoded, sort, limit, offset)))
    assert found == expected[offset : offset + limit]

    async def walk(size: int) -> list[str]:
        walked: list[str] = []
        cursor = None
        while True:
            records, cursor = await source.cursor(decoded, sort, size, cursor)
            walked += ids_of(records)
            assert len(records) == size or cursor is None
            if cursor is None:
                return walked

    assert asyncio.run(walk(data.draw(st.integers(1, 25)))) == expected


def encoded(*values: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).rstrip(b"=").decode()


ID = "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90"
NO_CURSORS = {
    "nothing": "",
    "text": "hello",
    "signs": "!!!!",
    "not ASCII": "ü",
    "not JSON": base64.urlsafe_b64encode(b"{").decode(),
    "not text": base64.urlsafe_b64encode(b"\xff\xff\xff").decode(),
    "too short": encoded("NAME_ASC", "a"),
    "too long": encoded("NAME_ASC", "a", ID, 1),
    "of another sort": encoded("NAME_DESC", "a", ID),
    "of another type": encoded("NAME_ASC", 5, ID),
    "null, where there is no null": encoded("NAME_ASC", None, ID),
    "no id": encoded("NAME_ASC", "a", "x"),
    "a list": encoded("NAME_ASC", ["a"], ID),
    "NUL": encoded("NAME_ASC", "\0", ID),
}


@pytest.mark.parametrize("cursor", NO_CURSORS.values(), ids=NO_CURSORS)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Invalid) as refused:
        asyncio.run(listing(0, "task_runs").cursor(sort=TaskRunSort.NAME_ASC, cursor=cursor))
    assert refused.value.field == "cursor"


def test_a_number_too_large_for_the_database_is_no_cursor() -> None:
    cursor = encoded("END_TIME_DESC", 2**63, ID)
    with pytest.raises(Invalid):
        asyncio.run(listing(0, "task_runs").cursor(sort=TaskRunSort.END_TIME_DESC, cursor=cursor))


# --- History ------------------------------------------------------------------------------------------------


@quick
@given(st.data())
def test_history_is_what_one_counts_by_hand(data: st.DataObject) -> None:
    seed, group = data.draw(SEEDS), data.draw(st.sampled_from(("task_runs", "flow_runs")))
    world, values = values_of(seed)
    asked = data.draw(st.just({}) | filters(values))
    start = START + data.draw(st.integers(-10, 6)) * SECOND // 2
    end = start + data.draw(st.integers(-2, 40)) * SECOND // 2
    interval = data.draw(st.sampled_from((SECOND, SECOND + 1, 5 * SECOND // 2, 3 * SECOND, 100 * SECOND)))
    now = START + data.draw(st.integers(-10, 10)) * SECOND // 2 + data.draw(st.integers(0, 1))
    reader = listing(seed, group)
    assert isinstance(reader, RunReader)
    bars = asyncio.run(reader.history(start, end, interval, now, decode_filters(asked)))
    assert len(bars) == len(range(start, end, interval))
    assert [(bar.start, bar.end) for bar in bars] == [(at, at + interval) for at in range(start, end, interval)]
    by_hand = count_by_hand(rows_that_match(world, group, asked), start, interval, len(bars), now)
    found = [{(s.type.value, s.name): (s.count, s.run_time, s.lateness) for s in bar.states} for bar in bars]
    assert found == by_hand
    assert all(list(bar.states) == sorted(bar.states, key=lambda s: (s.type, s.name)) for bar in bars)


def test_there_are_500_bars_at_most() -> None:
    reader = listing(0, "task_runs")
    assert isinstance(reader, RunReader)
    bars = asyncio.run(reader.history(START - 1000 * SECOND, START + 1000 * SECOND, SECOND, START))
    assert len(bars) == MAX_BARS
    assert all(not bar.states for bar in bars)
    assert bars[-1].end == START - 500 * SECOND


@pytest.mark.parametrize("interval", [SECOND - 1, 0, -SECOND])
def test_an_interval_below_a_second_is_refused(interval: int) -> None:
    reader = listing(0, "task_runs")
    assert isinstance(reader, RunReader)
    with pytest.raises(ValueError, match=r"History interval must not be less than 1 second\."):
        asyncio.run(reader.history(START, START + SECOND, interval, START))


@quick
@given(st.data())
def test_lateness_is_the_average_of_all(data: st.DataObject) -> None:
    seed = data.draw(SEEDS)
    world, values = values_of(seed)
    asked = data.draw(st.just({}) | filters(values))
    now = START + data.draw(st.integers(-10, 10)) * SECOND
    reader = listing(seed, "flow_runs")
    assert isinstance(reader, RunReader)
    rows = rows_that_match(world, "flow_runs", asked)
    (bar,) = count_by_hand(rows, 0, 10**18, 1, now)
    late = sum(lateness for _, _, lateness in bar.values())
    found = asyncio.run(reader.lateness(now, decode_filters(asked)))
    assert found == (late / len(rows) / SECOND if rows else None)


def test_the_worlds_have_what_the_tests_are_about() -> None:
    """Or they would show nothing: every state, every gap, runs on an edge."""
    for seed in range(3):
        world, _ = values_of(seed)
        for runs in (world.task_runs, world.flow_runs):
            for column in ("start_time", "end_time", "expected_start_time"):
                assert 5 < sum(run[column] is None for run in runs) < 55
            assert any(count > 1 for count in Counter(run["expected_start_time"] for run in runs).values())
        assert len({run["state_type"] for run in world.task_runs}) > 5
    assert text_of(START).endswith("+00:00")
