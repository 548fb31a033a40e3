"""Chores: when the writer does them, and who interrupts them."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from runlane_broker.storage.lane import LONGEST_REST, MEMORY, PATIENCE, QUIET, Lane
from runlane_broker.storage.operations.base import Chore
from runlane_broker.storage.operations.creating import CreateRuns
from runlane_broker.storage.operations.late import LONGEST, STEP, Marked, MarkTaskRunsLate
from runlane_broker.storage.operations.sessions import BeatBroker, StartBroker
from runlane_broker.storage.sqlite import SqliteExecutor
from runlane_broker.storage.store import Store

from ..support import PATIENCE as TEST_PATIENCE
from ..support import SECOND, Broken, ControlledExecutor, FakeClock, Gate, make_run, new_database, run


class Now:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Steps(Chore[int]):
    """Counts its steps, of which there is no end, until it is wanted. `each` is called before each of them."""

    def __init__(self, each: Callable[[], object] = lambda: None) -> None:
        self.each = each

    def execute(self, tx: Any) -> int:
        steps = 0
        while True:
            self.each()
            steps += 1
            if tx.is_wanted():
                return steps


class Count(Chore[int]):
    """Counts up to a number, one in a transaction."""

    def __init__(self, each: Callable[[], object], end: int, counted: int = 0) -> None:
        self.each = each
        self.end = end
        self.counted = counted

    def then(self, outcome: int) -> Count | None:
        return None if outcome == self.end else Count(self.each, self.end, outcome)

    def execute(self, tx: Any) -> int:
        self.each()
        tx.is_wanted()
        return self.counted + 1


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[Store]:
    """A store in which chores have steps and are joined."""
    clock = FakeClock()
    store = Store.sqlite(path, clock, "broker", SqliteExecutor(path, clock, "broker"))
    await store.run(StartBroker("broker", "1.0"))
    try:
        yield store
    finally:
        await store.close()


def commits(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT commit_number FROM broker").fetchone()[0]


# --- The lane -----------------------------------------------------------------------------------------------


def test_a_lane_is_empty_or_says_when_its_first_chore_may_begin() -> None:
    now = Now()
    lane: Lane[str] = Lane(now)
    assert lane.due_in() is None
    lane.put("a")
    lane.put("b")
    assert lane.due_in() == 0
    assert [lane.take(), lane.take()] == ["a", "b"]
    assert lane.due_in() is None


def test_where_nobody_else_writes_there_is_no_rest() -> None:
    now = Now()
    lane: Lane[str] = Lane(now)
    assert lane.rest(0.01) == 0
    lane.meet()
    now.seconds += MEMORY
    assert lane.rest(0.01) == 0


@pytest.mark.parametrize(("asked", "rest"), [(0.001, 0.001), (9.0, LONGEST_REST)])
def test_beside_others_there_is_a_rest(asked: float, rest: float) -> None:
    now = Now()
    lane: Lane[str] = Lane(now)
    lane.put("a")
    lane.meet()
    assert lane.rest(asked) == rest
    assert lane.due_in() == pytest.approx(rest)
    now.seconds += rest + 1e-6
    assert lane.due_in() == 0


def test_a_chore_is_impatient_when_there_have_been_others_for_long() -> None:
    now = Now()
    lane: Lane[str] = Lane(now)
    assert not lane.is_impatient()
    lane.put("a")
    now.seconds += PATIENCE - 1e-6
    assert not lane.is_impatient()
    now.seconds += 2e-6
    assert lane.is_impatient()


def test_no_chore_begins_while_those_who_were_answered_may_come_again() -> None:
    now = Now()
    lane: Lane[str] = Lane(now)
    lane.put("a")
    lane.part()
    assert lane.due_in() == pytest.approx(QUIET)
    now.seconds += QUIET + 1e-6
    assert lane.due_in() == 0
    for _ in range(100):
        now.seconds += PATIENCE / 100 + 1e-9
        lane.part()
    assert lane.is_impatient(), "also where others are answered all the time"


# --- The writer ---------------------------------------------------------------------------------------------


def test_who_comes_ends_a_chore_and_shares_its_commit(tmp_path: Path) -> None:
    async def main() -> None:
        path = new_database(tmp_path)
        async with opened(path) as store:
            gate = Gate()
            before = commits(path)
            chore = asyncio.ensure_future(store.run(Steps(gate)))
            await gate.reached()
            runs = [make_run() for _ in range(3)]
            others = [asyncio.ensure_future(store.run(CreateRuns((run,)))) for run in runs]
            await asyncio.sleep(0)
            gate.open()
            assert [created.id for (created,) in await asyncio.gather(*others)] == [run.id for run in runs]
            assert await chore == 1
            assert commits(path) == before + 1

    run(main())


def test_a_chore_goes_on_while_nobody_comes(tmp_path: Path) -> None:
    async def main() -> None:
        path = new_database(tmp_path)
        async with opened(path) as store:
            seen = threading.Semaphore(0)
            chore = asyncio.ensure_future(store.run(Steps(seen.release)))
            for _ in range(5):
                assert await asyncio.to_thread(seen.acquire, timeout=TEST_PATIENCE)
            assert not chore.done()
            await store.run(BeatBroker("broker"))
            assert await chore >= 5

    run(main())


def test_who_fails_beside_a_chore_fails_alone(tmp_path: Path) -> None:
    async def main() -> None:
        path = new_database(tmp_path)
        async with opened(path) as store:
            gate = Gate()
            chore = asyncio.ensure_future(store.run(Steps(gate)))
            await gate.reached()
            record = make_run()
            broken = asyncio.ensure_future(store.run(Broken()))
            created = asyncio.ensure_future(store.run(CreateRuns((record,))))
            await asyncio.sleep(0)
            gate.open()
            with pytest.raises(ValueError, match="broken"):
                await broken
            assert [one.id for one in await created] == [record.id]
            assert await chore == 1, "it is done again, by itself"

    run(main())


def test_a_chore_that_fails_costs_nobody_anything(tmp_path: Path) -> None:
    class Failing(Steps):
        def execute(self, tx: Any) -> int:
            super().execute(tx)
            raise ValueError("a bad chore")

    async def main() -> None:
        async with opened(new_database(tmp_path)) as store:
            gate = Gate()
            chore = asyncio.ensure_future(store.run(Failing(gate)))
            await gate.reached()
            record = make_run()
            created = asyncio.ensure_future(store.run(CreateRuns((record,))))
            await asyncio.sleep(0)
            gate.open()
            with pytest.raises(ValueError, match="a bad chore"):
                await chore
            assert [one.id for one in await created] == [record.id]

    run(main())


def test_a_chore_stands_back_for_what_waits(tmp_path: Path) -> None:
    async def main() -> None:
        path = new_database(tmp_path)
        clock = FakeClock()
        executor = ControlledExecutor(SqliteExecutor(path, clock, "broker"))
        store = Store.sqlite(path, clock, "broker", executor)
        await store.run(StartBroker("broker", "1.0"))
        gate = executor.before = Gate()
        first = asyncio.ensure_future(store.run(BeatBroker("broker")))
        await gate.reached()
        chore, other = Steps(), BeatBroker("broker")
        rest = [asyncio.ensure_future(store.run(one)) for one in (chore, other)]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, *rest)
        assert [one for group in executor.groups[-2:] for one in group] == [other, chore]
        await store.close()

    run(main())


def test_closing_does_what_is_in_the_lane(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as store:
            chores = [asyncio.ensure_future(store.run(Steps())) for _ in range(3)]
            await asyncio.sleep(0)
        assert await asyncio.gather(*chores) == [1, 1, 1]

    run(main())


def test_runs_are_marked_late_many_in_a_transaction_while_nobody_comes(tmp_path: Path) -> None:
    async def main() -> None:
        path = new_database(tmp_path)
        clock = FakeClock()
        store = Store.sqlite(path, clock, "broker", SqliteExecutor(path, clock, "broker"))
        await store.run(StartBroker("broker", "1.0"))
        await store.run(CreateRuns(tuple(make_run() for _ in range(LONGEST + STEP))))
        clock.advance(20)
        before = commits(path)
        assert await store.run(MarkTaskRunsLate(15 * SECOND)) == Marked(LONGEST + STEP, None)
        assert commits(path) == before + 2
        await store.close()

    run(main())


def test_an_interrupted_chore_goes_on_where_it_stopped_and_tells_of_all_at_its_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as store:
            gates = [Gate() for _ in range(3)]
            waiting = iter(gates)
            chore = asyncio.ensure_future(store.run(Count(lambda: next(waiting)(), len(gates))))
            for gate in gates:
                await gate.reached()
                assert store.waiting == 1
                other = asyncio.ensure_future(store.run(BeatBroker("broker")))
                await asyncio.sleep(0)
                assert not chore.done()
                gate.open()
                await other
            assert await chore == len(gates)
            assert store.waiting == 0

    run(main())


def test_the_writer_ends_a_chore_where_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as store:
            gate = Gate()
            chore = asyncio.ensure_future(store.run(Count(gate, 100)))
            await gate.reached()
            closing = asyncio.ensure_future(store.close())
            await asyncio.sleep(0)
            gate.open()
            await closing
            assert 1 <= await chore < 100

    run(main())
