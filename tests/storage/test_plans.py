"""How SQLite goes about lists, counts and history of task runs: by indexes, and without sorting what is long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, insert

from runlane.protocol.states import FINAL, StateType, default_name
from runlane_broker.schemas.sorts import TaskRunSort
from runlane_broker.storage.rows import task_run_record
from runlane_broker.storage.runs import RunReader
from runlane_broker.storage.tables import TASK_RUN, task_run

from ..support import SECOND, START, new_database
from .worlds import decode_filters, text_of

COMPLETED = {"state": {"type": {"any_": ["COMPLETED"]}}}
FAILED = {"state": {"type": {"any_": ["FAILED"]}}}
KEY = {"task_key": {"any_": ["k"]}}
SORTED_BY = {
    TaskRunSort.ID_DESC: "SCAN task_run",
    TaskRunSort.EXPECTED_START_TIME_ASC: "ix_task_run_expected",
    TaskRunSort.EXPECTED_START_TIME_DESC: "ix_task_run_expected",
    TaskRunSort.NAME_ASC: "ix_task_run_name",
    TaskRunSort.NAME_DESC: "ix_task_run_name",
    TaskRunSort.NEXT_SCHEDULED_START_TIME_ASC: "ix_task_run_due",
    TaskRunSort.END_TIME_DESC: "ix_task_run_ended",
}


class Explained:
    """A reader that notes how each of its statements is carried out."""

    def __init__(self, connection: Connection) -> None:
        self.plans: list[list[str]] = []
        self.reader = RunReader(TASK_RUN, self._reading, task_run_record)
        self._connection = connection
        event.listen(connection, "before_cursor_execute", self._explain)

    @asynccontextmanager
    async def _reading(self) -> AsyncGenerator[Any]:
        yield self

    async def execute(self, query: Any, values: Any = None) -> Any:
        return self._connection.execute(query, values)

    def _explain(self, _connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        rows = cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        self.plans.append([row[3] for row in rows])

    def list(self, sort: TaskRunSort, filters: Any = None) -> list[list[str]]:
        self.plans.clear()
        asyncio.run(self.reader.list(_filters(filters), sort, 10))
        return self.plans

    def count(self, filters: Any = None) -> list[str]:
        self.plans.clear()
        asyncio.run(self.reader.count(_filters(filters)))
        (plan,) = self.plans
        return plan

    def history(self, filters: Any = None) -> list[str]:
        self.plans.clear()
        asyncio.run(self.reader.history(START, START + 500 * SECOND, SECOND, START, _filters(filters)))
        (plan,) = self.plans
        return plan


def _filters(task_runs: Any) -> Any:
    return decode_filters({"task_runs": task_runs} if task_runs else {})


@pytest.fixture
def explained(tmp_path: Path) -> Iterator[Explained]:
    """A database with 30 COMPLETED and 30 SCHEDULED runs, and a few others."""
    engine = create_engine(f"sqlite:///{new_database(tmp_path)}")
    states = [*[StateType.COMPLETED, StateType.SCHEDULED] * 30, *StateType]
    with engine.connect() as connection:
        connection.execute(insert(task_run), [_row(i, state) for i, state in enumerate(states)])
        explained = Explained(connection)
        explained.reader.many = 20
        yield explained
    engine.dispose()


def _row(number: int, state: StateType) -> dict[str, Any]:
    at = START + number * SECOND
    texts = dict.fromkeys(("dynamic_key", "state_id", "retry_delay", "headers"), "")
    numbers = dict.fromkeys(("priority", "lane", "attempt", "failures", "losses", "run_count", "retries"), 0)
    times = dict.fromkeys(("due", "state_timestamp", "created", "updated", "expected_start_time"), at)
    return {
        **texts,
        **numbers,
        **times,
        "id": f"{number:036}",
        "dynamic_key": f"{number:036}",
        "task_key": f"{'klm'[number % 3]}",
        "name": "n",
        "tags": "[]",
        "state_type": state.value,
        "state_name": default_name(state),
        "end_time": at if state in FINAL else None,
        "total_run_time": 0,
        "retry_jitter": 0.0,
        "payload_hash": b"",
    }


def sorts(plan: list[str]) -> bool:
    return any("TEMP B-TREE FOR ORDER BY" in step for step in plan)


def scans(plan: list[str]) -> bool:
    """Whether all rows are looked at: with or without an index."""
    return any(step.startswith("SCAN task_run") for step in plan)


@pytest.mark.parametrize("sort", list(TaskRunSort))
def test_a_page_of_any_sort_is_the_beginning_of_an_index(explained: Explained, sort: TaskRunSort) -> None:
    first, rows = explained.list(sort)
    assert SORTED_BY[sort] in first[0]
    assert sort is TaskRunSort.ID_DESC or "COVERING INDEX" in first[0]
    assert len(first) == 1
    assert all(step.startswith("SEARCH") and "PRIMARY KEY" in step for step in rows)


@pytest.mark.parametrize("sort", list(TaskRunSort))
@pytest.mark.parametrize("filters", [COMPLETED, {**COMPLETED, "tags": {"all_": ["a"]}}])
def test_a_page_of_what_there_is_a_lot_of_is_found_in_its_order(
    explained: Explained, sort: TaskRunSort, filters: Any
) -> None:
    counted, page, *_ = explained.list(sort, filters)
    assert "ix_task_run_state (state_type=?)" in counted[1]
    assert SORTED_BY[sort] in page[0]
    assert not sorts(page)


@pytest.mark.parametrize("sort", list(TaskRunSort))
@pytest.mark.parametrize("filters", [FAILED, KEY, {**FAILED, **KEY}])
def test_a_page_of_what_there_is_little_of_is_found_by_what_is_asked(
    explained: Explained, sort: TaskRunSort, filters: Any
) -> None:
    explained.reader.many = 100
    counted, page, *_ = explained.list(sort, filters)
    for plan in (counted, page):
        assert not scans(plan)
        assert any("ix_task_run_" in step for step in plan)


@pytest.mark.parametrize("filters", [COMPLETED, FAILED, KEY, {**COMPLETED, **KEY}])
def test_a_count_by_state_and_key_is_read_from_an_index_alone(explained: Explained, filters: Any) -> None:
    (step,) = explained.count(filters)
    assert step.startswith("SEARCH task_run USING COVERING INDEX ix_task_run_state (state_type=?")
    assert ("task_key=?" in step) is ("task_key" in filters)


def test_all_are_counted_in_an_index(explained: Explained) -> None:
    (step,) = explained.count()
    assert "COVERING INDEX" in step


def test_runs_of_a_flow_run_are_found_by_it(explained: Explained) -> None:
    asked = {"flow_run_id": {"any_": ["0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90"]}}
    (step,) = explained.count(asked)
    assert "uq_task_run_flow_run_dynamic_key (flow_run_id=?)" in step


def test_a_stretch_of_time_is_part_of_an_index(explained: Explained) -> None:
    asked = {"expected_start_time": {"after_": text_of(START), "before_": text_of(START + SECOND)}}
    (step,) = explained.count(asked)
    assert "ix_task_run_expected (expected_start_time>? AND expected_start_time<?)" in step


@pytest.mark.parametrize("filters", [None, {"tags": {"all_": ["a"]}}])
def test_history_reads_its_stretch_of_time_and_no_more(explained: Explained, filters: Any) -> None:
    plan = explained.history(filters)
    assert plan[0].endswith("ix_task_run_expected (expected_start_time>? AND expected_start_time<?)")
    assert not scans(plan)
