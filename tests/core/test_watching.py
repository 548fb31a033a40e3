"""Watchers: nobody misses an end, nobody is told twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from runlane.protocol.states import StateType
from runlane_broker.core.hub import Hub, Progress
from runlane_broker.errors import StoreUnavailable
from runlane_broker.storage.records import FinalRun

from ..support import new_database, new_id, run
from .harness import Broker, Producer, broker

S = StateType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


class SlowRead:
    """Stops reads of outcomes before or after they have been made."""

    def __init__(self, b: Broker, *, before: bool) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self._before = before
        self._read = b.core.store.outcomes
        b.core.store.outcomes = self  # type: ignore[assignment,method-assign]

    async def __call__(self, ids: Sequence[str]) -> Any:
        found = None if self._before else await self._read(ids)
        self.reached.set()
        await self.go.wait()
        return await self._read(ids) if self._before else found


@pytest.mark.parametrize("before", [True, False], ids=["before the read", "after the read"])
def test_an_end_between_the_registration_and_the_answer_is_told_once(path: Path, before: bool) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(), b.producer()
            await b.quiet()
            run_id = await producer.queued()
            await worker.wait_for("run")
            read = SlowRead(b, before=before)
            watching = asyncio.ensure_future(producer.watch(run_id))
            await read.reached.wait()
            worker.finished(run_id)
            await producer.wait_for("finished")
            read.go.set()
            assert await watching == []
            await b.quiet()
            assert producer.of("finished") == [("finished", run_id, S.COMPLETED, None)]
            assert b.core.hub._watchers == {}

    run(main())


def test_what_has_ended_is_told_at_once_and_what_is_unknown_is_returned(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(limit=2), b.producer()
            await b.quiet()
            ended, open_ = await producer.queued(), await producer.queued()
            await worker.wait_for("run", 2)
            worker.finished(ended)
            await worker.wait_for("recorded")
            unknown = new_id()
            assert await producer.watch(ended, unknown, open_) == [unknown]
            assert producer.of("finished") == [("finished", ended, S.COMPLETED, None)]
            worker.finished(open_)
            await producer.wait_for("finished", 2)
            assert b.core.hub._watchers == {}

    run(main())


def test_every_watcher_is_told_and_none_that_has_stopped(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producers = await b.worker(), [b.producer() for _ in range(3)]
            await b.quiet()
            run_id = await producers[0].queued()
            for producer in producers:
                await producer.watch(run_id, run_id)
            b.core.watching.unwatch(producers[1], [run_id, new_id()])
            await worker.wait_for("run")
            worker.finished(run_id)
            await producers[2].wait_for("finished")
            assert [len(producer.of("finished")) for producer in producers] == [1, 0, 1]

    run(main())


def test_a_watch_that_stops_while_it_is_answered_is_not_told(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(), b.producer()
            await b.quiet()
            run_id = await producer.queued()
            await worker.wait_for("run")
            worker.finished(run_id)
            await worker.wait_for("recorded")
            read = SlowRead(b, before=False)
            watching = asyncio.ensure_future(producer.watch(run_id))
            await read.reached.wait()
            b.core.watching.unwatch(producer, [run_id])
            read.go.set()
            await watching
            assert producer.of("finished") == []

    run(main())


def test_a_watch_that_cannot_be_answered_raises(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()

            async def fail(_: Sequence[str]) -> Any:
                raise StoreUnavailable("not now")

            b.core.store.outcomes = fail  # type: ignore[assignment,method-assign]
            with pytest.raises(StoreUnavailable):
                await producer.watch(new_id())

    run(main())


def test_who_comes_late_hears_the_latest_progress_and_nothing_of_an_earlier_attempt(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker()
            await b.quiet()
            run_id = await b.producer().queued(retries=1, retry_delay=(60.0,))
            await worker.wait_for("run")
            worker.progress(run_id, 0.25)
            worker.progress(run_id, 0.5)
            worker.progress(run_id, 0.9, attempt=7)
            late = b.producer()
            await late.watch(run_id)
            assert late.events == [("progress", run_id, 0.5)]
            worker.finished(run_id, type_="FAILED")
            await worker.wait_for("recorded")
            worker.progress(run_id, 0.9)
            later = b.producer()
            await later.watch(run_id)
            assert later.events == []
            assert b.core.hub._progress == {}

    run(main())


def test_progress_of_a_lost_run_is_forgotten(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker()
            await b.quiet()
            run_id = await b.producer().queued()
            await worker.wait_for("run")
            worker.progress(run_id, 0.5)
            worker.quit()
            await b.quiet()
            assert b.core.hub._progress == {}

    run(main())


def test_a_hub_keeps_nothing_of_what_has_ended() -> None:
    hub = Hub()
    watcher = Producer.__new__(Producer)
    watcher.events = []

    async def main() -> None:
        Producer.__init__(watcher, None)  # type: ignore[arg-type]
        hub.watch(watcher, ["a", "b"])
        hub.progressed("a", Progress(1, None, None))
        hub.finished(FinalRun("a", "k", S.COMPLETED, "Completed", None))
        hub.finished(FinalRun("a", "k", S.COMPLETED, "Completed", None))
        hub.unwatch(watcher, ["a", "b", "c"])
        assert watcher.of("finished") == [("finished", "a", S.COMPLETED, None)]
        assert (hub._watchers, hub._progress) == ({}, {})

    run(main())
