"""Chores: when the writer does a step of one, and who goes before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runlane_broker.storage.lane import LONGEST_REST, MEMORY, PATIENCE, QUIET, Lane
from runlane_broker.storage.operations.base import Chore, Operation
from runlane_broker.storage.operations.creating import CreateRuns
from runlane_broker.storage.operations.late import STEP, Marked, MarkTaskRunsLate
from runlane_broker.storage.operations.sessions import BeatBroker, StartBroker
from runlane_broker.storage.sqlite import SqliteExecutor
from runlane_broker.storage.store import Store

from ..support import SECOND, ControlledExecutor, FakeClock, Gate, make_run, new_database, run


class Now:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Count(Chore[int]):
    """Counts up to a number, one in a step. `each` is called in each of them."""

    def __init__(self, end: int = 1, each: Callable[[], object] = lambda: None, counted: int = 0) -> None:
        self.end = end
        self.each = each
        self.counted = counted

    def then(self, outcome: int) -> Count | None:
        return None if outcome == self.end else Count(self.end, self.each, outcome)

    def execute(self, tx: Any) -> int:
        self.each()
        return self.counted + 1


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[tuple[Store, ControlledExecutor]]:
    clock = FakeClock()
    executor = ControlledExecutor(SqliteExecutor(path, clock, "broker"))
    store = Store.sqlite(path, clock, "broker", executor)
    await store.run(StartBroker("broker", "1.0"))
    try:
        yield store, executor
    finally:
        await store.close()


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
    lane.put("a")
    lane.rest(0.01)
    assert lane.due_in() == 0
    lane.meet()
    now.seconds += MEMORY
    lane.rest(0.01)
    assert lane.due_in() == 0


@pytest.mark.parametrize(("asked", "rest"), [(0.001, 0.001), (9.0, LONGEST_REST)])
def test_beside_others_there_is_a_rest(asked: float, rest: float) -> None:
    now = Now()
    lane: Lane[str] = Lane(now)
    lane.put("a")
    lane.meet()
    lane.rest(asked)
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


def test_who_comes_goes_before_the_next_step(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, executor):
            gates = [Gate() for _ in range(3)]
            waiting = iter(gates)
            chore = asyncio.ensure_future(store.run(Count(len(gates), lambda: next(waiting)())))
            others: list[BeatBroker] = []
            for gate in gates:
                await gate.reached()
                assert store.waiting == 1
                others.append(BeatBroker("broker"))
                answer = asyncio.ensure_future(store.run(others[-1]))
                await asyncio.sleep(0)
                assert not chore.done()
                gate.open()
                await answer
            assert await chore == len(gates), "it tells of all at its end"
            assert store.waiting == 0
            steps = executor.executed(Count)
            turns = [group for group in executor.groups if group[0] in (*others, *steps)]
            assert turns == [[one] for pair in zip(steps, others, strict=True) for one in pair]

    run(main())


def test_a_step_does_not_wait_for_the_disk_but_what_others_write_does(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, executor):
            executor.groups.clear()
            executor.synced.clear()
            assert await store.run(Count(2)) == 2
            await store.run(BeatBroker("broker"))
            assert await store.run(Count()) == 1
            assert [type(operation) for (operation,) in executor.groups] == [Count, Count, BeatBroker, Count]
            assert executor.synced == [False, False, True, False]

    run(main())


def test_where_there_are_always_others_a_step_goes_with_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, executor):
            answers: list[asyncio.Future[Any]] = []
            gates = [Gate() for _ in range(2)]
            waiting = iter(gates)
            executor.before = lambda _: next(waiting, lambda: None)()

            async def come_during(gate: Gate, operation: Operation[Any]) -> None:
                """Have it come while the one before is at work, and that last for long."""
                await gate.reached()
                answers.append(asyncio.ensure_future(store.run(operation)))
                await asyncio.sleep(2 * PATIENCE)
                gate.open()

            chore, last = Count(), BeatBroker("broker")
            answers.append(asyncio.ensure_future(store.run(BeatBroker("broker"))))
            await come_during(gates[0], BeatBroker("broker"))
            answers.append(asyncio.ensure_future(store.run(chore)))
            await come_during(gates[1], last)
            await asyncio.gather(*answers)
            assert executor.groups[-1] == [last, chore]
            assert executor.synced[-1]

    run(main())


def test_where_several_chores_wait_one_of_them_goes_with_the_others_at_a_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, executor):
            executor.groups.clear()
            now = Now()
            store._writer._lane = Lane(now)
            gates = [Gate() for _ in range(4)]
            waiting = iter(gates)
            executor.before = lambda _: next(waiting, lambda: None)()
            answers: list[asyncio.Future[Any]] = []

            def submit(*operations: Operation[Any]) -> None:
                answers.extend(asyncio.ensure_future(store.run(one)) for one in operations)

            submit(BeatBroker("broker"))
            for gate, chores in zip(gates, [(Count(), Count()), (), (), ()], strict=True):
                await gate.reached()
                submit(*chores, BeatBroker("broker"))
                await asyncio.sleep(0)
                now.seconds += PATIENCE if gate is gates[1] else 0.0
                gate.open()
            await asyncio.gather(*answers)
            with_others = [len(group) for group in executor.groups if isinstance(group[0], BeatBroker)]
            assert with_others == [1, 1, 2, 1, 1]

    run(main())


def test_a_chore_that_fails_costs_nobody_anything(tmp_path: Path) -> None:
    class Failing(Count):
        def execute(self, tx: Any) -> int:
            super().execute(tx)
            raise ValueError("a bad chore")

    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, _):
            gate = Gate()
            chore = asyncio.ensure_future(store.run(Failing(each=gate)))
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
        async with opened(new_database(tmp_path)) as (store, executor):
            gate = executor.before = Gate()
            first = asyncio.ensure_future(store.run(BeatBroker("broker")))
            await gate.reached()
            chore, other = Count(), BeatBroker("broker")
            rest = [asyncio.ensure_future(store.run(one)) for one in (chore, other)]
            await asyncio.sleep(0)
            gate.open()
            await asyncio.gather(first, *rest)
            assert [one for group in executor.groups[-2:] for one in group] == [other, chore]

    run(main())


def test_closing_does_what_is_in_the_lane(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, _):
            chores = [asyncio.ensure_future(store.run(Count())) for _ in range(3)]
            await asyncio.sleep(0)
        assert await asyncio.gather(*chores) == [1, 1, 1]

    run(main())


def test_runs_are_marked_late_a_page_at_a_time(tmp_path: Path) -> None:
    async def main() -> None:
        path = new_database(tmp_path)
        clock = FakeClock()
        executor = ControlledExecutor(SqliteExecutor(path, clock, "broker"))
        store = Store.sqlite(path, clock, "broker", executor)
        await store.run(StartBroker("broker", "1.0"))
        await store.run(CreateRuns(tuple(make_run() for _ in range(2 * STEP + 1))))
        clock.advance(20)
        assert await store.run(MarkTaskRunsLate(15 * SECOND)) == Marked(2 * STEP + 1, None)
        assert len(executor.executed(MarkTaskRunsLate)) == 3
        await store.close()

    run(main())


def test_the_writer_ends_a_chore_where_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, _):
            gate = Gate()
            chore = asyncio.ensure_future(store.run(Count(100, gate)))
            await gate.reached()
            closing = asyncio.ensure_future(store.close())
            await asyncio.sleep(0)
            gate.open()
            await closing
            assert 1 <= await chore < 100

    run(main())
