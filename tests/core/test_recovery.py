"""A broker on the file of one before it: sessions are adopted, and nothing is lost, doubled or reordered."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from runlane.protocol.states import StateType
from runlane_broker.settings import Settings

from ..support import FakeClock, make_run, new_database, new_id, run
from .harness import Worker, broker

S = StateType
WINDOW = 4


@dataclass
class Left:
    """What the first broker left behind, and the worker that knew it."""

    path: Path
    worker: Worker
    held: list[str]
    queued: list[str]


async def leave(path: Path, clock: FakeClock, *, queued: int, held: int = 2, killed: bool = False) -> Left:
    """Let a broker begin, and end: by the book or at once."""
    killed_copy = path.with_name("killed")
    async with broker(path, clock=clock) as b:
        worker, producer = await b.worker(limit=max(held, 1)), b.producer()
        await b.quiet()
        if not held:
            b.core.sessions.set_limit(worker.own, 0)
        ids = [await producer.queued() for _ in range(held)]
        await worker.wait_for("run", held) if held else None
        for run_id in ids[:1]:
            worker.started(run_id)
        runs = [make_run(priority=i % 3) for i in range(queued)]
        if runs:
            await producer.submitted(*runs)
        await b.quiet()
        if killed:
            killed_copy.mkdir()
            for file in path.parent.glob(path.name + "*"):
                shutil.copyfile(file, killed_copy / file.name)
    order = sorted(runs, key=lambda r: (-r.priority, r.due, r.id))
    return Left(killed_copy / path.name if killed else path, worker, ids, [r.id for r in order])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_a_worker_goes_on_with_its_runs_at_the_next_broker(path: Path, killed: bool) -> None:
    async def main() -> None:
        clock = FakeClock()
        left = await leave(path, clock, queued=1, killed=killed)
        clock.advance(30)
        async with broker(left.path, clock=clock) as b:
            assert (b.backlog.queued, b.backlog.leased) == (1, 2)
            assert [s.id for s in b.backlog.sessions] == [left.worker.own.id]
            b.later(4)
            second = Worker(b.core, limit=2)
            await second.connected(left.worker, [(run_id, 1) for run_id in left.held])
            assert second.answer is not None
            assert set(second.answer.resumed) == set(left.held)
            b.later(5, second)
            await b.quiet()
            assert second.pushed == [], "it goes on with what it has"
            second.finished(left.held[0])
            await second.wait_for("run")
            assert second.pushed == [(left.queued[0], 1)]
            await second.wait_for("recorded")
            assert (await b.run(left.held[0])).attempt == 1

    run(main())


def test_a_report_that_the_last_broker_had_committed_has_the_same_verdict_at_the_next(path: Path) -> None:
    async def main() -> None:
        clock = FakeClock()
        run_id = new_id()
        async with broker(path, clock=clock) as b:
            worker = await b.worker()
            await b.quiet()
            await b.producer().submitted(make_run(id=run_id))
            await worker.wait_for("run")
            worker.finished(run_id)
        async with broker(path, clock=clock) as b:
            second = await Worker(b.core).connected(worker, [(run_id, 1)])
            second.finished(run_id)
            await second.wait_for("recorded")
            assert await b.names(run_id) == ["Scheduled", "Pending", "Completed"]

    run(main())


def test_who_is_back_is_served_at_once_whoever_else_is_missing(path: Path) -> None:
    async def main() -> None:
        clock = FakeClock()
        left = await leave(path, clock, queued=1, held=1, killed=True)
        async with broker(left.path, clock=clock) as b:
            first = await b.worker()
            await first.wait_for("run")
            assert first.pushed == [(left.queued[0], 1)], "the one that is missing has all of its grace"
            assert b.later(0.0, first).lost == 0
            assert (await b.run(left.held[0])).attempt == 1

    run(main())


@pytest.mark.parametrize("down", [0, 3600])
def test_the_grace_of_an_adopted_session_runs_from_the_start_of_the_broker(path: Path, down: float) -> None:
    async def main() -> None:
        clock = FakeClock()
        left = await leave(path, clock, queued=0, held=1)
        clock.advance(down)
        async with broker(path, clock=clock) as b:
            other = await b.worker()
            assert b.later(4.9, other).lost == 0
            assert b.later(0.2, other).lost == 1
            await other.wait_for("run")
            assert other.pushed == [(left.held[0], 2)]
            assert (await b.run(left.held[0])).losses == 1

    run(main())


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
@pytest.mark.parametrize("queued", [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 5 * WINDOW + 3])
def test_the_whole_backlog_is_delivered_in_order(path: Path, queued: int, killed: bool) -> None:
    async def main() -> None:
        clock = FakeClock()
        left = await leave(path, clock, queued=queued, held=0, killed=killed)
        async with broker(left.path, clock=clock, settings=Settings(window_size=WINDOW)) as b:
            assert b.backlog.queued == queued
            worker = await b.worker()
            for i, run_id in enumerate(left.queued):
                await worker.wait_for("run", i + 1)
                worker.finished(run_id)
            await b.quiet()
            assert worker.pushed == [(run_id, 1) for run_id in left.queued]
            assert (await b.core.store.backlog()).queued == 0

    run(main())


def test_a_broker_whose_clock_was_set_back_goes_on_with_the_history(path: Path) -> None:
    async def main() -> None:
        clock = FakeClock()
        left = await leave(path, clock, queued=0, held=1)
        clock.set_wall(-3600)
        async with broker(path, clock=clock) as b:
            second = await Worker(b.core).connected(left.worker, [(left.held[0], 1)])
            second.finished(left.held[0])
            await second.wait_for("recorded")
            assert (await b.names(left.held[0]))[-1] == "Completed"

    run(main())


def test_nothing_is_leased_before_the_broker_has_started(path: Path) -> None:
    async def main() -> None:
        async with broker(path, start=False) as b:
            worker = Worker(b.core)
            worker.subscribe()
            await worker.wait_for("subscribed")
            run_id = await b.producer().queued()
            await b.quiet()
            assert worker.pushed == []
            assert not b.core.ready
            b.core.dispatching.start()
            await worker.wait_for("run")
            assert worker.pushed == [(run_id, 1)]

    run(main())


def test_a_broker_that_starts_on_a_new_file_finds_nothing(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            assert (b.backlog.queued, b.backlog.leased, b.backlog.sessions) == (0, 0, ())
            assert b.core.ready
            await b.core.beat()

    run(main())
