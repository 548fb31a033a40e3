"""What tasks learn and say of their run, and the resources around all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from runlane import ArgumentError, ConnectionFailed, Worker, current_run, task
from runlane.protocol import messages as m
from tests.sdk.fake_broker import FakeBroker, fake_broker, pushed, run

from . import cpu
from .support import error_of, result_of, working

setting: ContextVar[str] = ContextVar("setting", default="none")


@task(key="asnooze")
async def asnooze(seconds: float) -> None:
    try:
        current_run().snooze(seconds)
    except Exception as exc:
        raise RuntimeError(f"seen: {exc}") from None


@task(key="snooze")
def snooze(seconds: float) -> None:
    current_run().snooze(seconds)


@task(key="about")
def about() -> dict[str, Any]:
    one = current_run()
    deadline = one.deadline.isoformat() if one.deadline else None
    return {"id": one.id, "attempt": one.attempt, "headers": dict(one.headers), "deadline": deadline}


@task(key="aboutasync")
async def aboutasync() -> dict[str, Any]:
    return about.function()


@task(key="resources")
def resources() -> str:
    return f"{current_run().resources} {setting.get()} {threading.current_thread().name.partition('_')[0]}"


@task(key="aresources")
async def aresources() -> str:
    return f"{current_run().resources} {setting.get()}"


@task(key="limited", timeout=0.05)
async def limited() -> None:
    await asyncio.sleep(5)


@task(key="keen", retries=3, no_retry_on=LookupError)
async def keen() -> None:
    raise KeyError("gone")


@pytest.mark.parametrize("key", ["asnooze", "snooze"])
def test_a_snoozed_run_is_given_back_with_a_delay(key: str) -> None:
    async def main() -> None:
        async with working(asnooze, snooze) as (_, peer):
            await peer.push(pushed(key, seconds=90))
            await peer.expect(m.Started)
            (released,) = (await peer.expect(m.Release)).runs
            assert (released.delay, released.reason) == (90.0, "The task snoozed.")
            await peer.push(pushed(key, seconds=-1))
            report = await peer.finished()
            assert "0 to 315360000 seconds, not -1" in error_of(report)["message"]

    run(main())


@pytest.mark.parametrize("key", ["about", "aboutasync"])
def test_a_run_knows_itself(key: str) -> None:
    async def main() -> None:
        async with working(about, aboutasync) as (_, peer):
            one = msgspec.structs.replace(pushed(key, attempt=3), headers={"trace": "1"})
            await peer.push(one)
            told = result_of(await peer.finished())
            assert told == {"id": one.id, "attempt": 3, "headers": {"trace": "1"}, "deadline": None}
            await peer.push(msgspec.structs.replace(pushed(key), timeout=60.0))
            deadline = datetime.fromisoformat(result_of(await peer.finished())["deadline"])
            assert timedelta(seconds=55) < deadline - datetime.now(UTC) <= timedelta(seconds=60)

    run(main())


def test_a_tasks_own_timeout_counts_where_the_run_has_none() -> None:
    async def main() -> None:
        async with working(limited) as (_, peer):
            await peer.push(pushed("limited"))
            report = await peer.finished()
            assert report.state.name == "TimedOut"
            assert "0.05 s" in error_of(report)["message"]

    run(main())


def test_a_failure_that_is_not_to_be_retried_says_so() -> None:
    async def main() -> None:
        async with working(keen) as (_, peer):
            await peer.push(pushed("keen"))
            assert (await peer.finished()).retriable is False

    run(main())


def test_resources_are_there_before_the_first_run_and_until_the_last() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        events.append("begin")
        setting.set("of the lifespan")
        try:
            yield "pool"
        finally:
            events.append("end")

    @task(key="late")
    async def late() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            events.append("cleanup")

    async def main() -> None:
        async with working(resources, aresources, late, lifespan=lifespan, drain_seconds=0.02) as (worker, peer):
            assert events == ["begin"]
            await peer.push(pushed("resources"))
            assert result_of(await peer.finished()) == "pool of the lifespan runlane"
            await peer.push(pushed("aresources"))
            assert result_of(await peer.finished()) == "pool of the lifespan"
            await peer.push(pushed("late"))
            await peer.expect(m.Started)
            worker.stop()
            await peer.goodbye()
        assert events == ["begin", "cleanup", "end"]

    run(main())


def test_a_lifespan_that_fails_keeps_the_worker_from_starting() -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    async def main() -> None:
        async with fake_broker() as broker:
            with pytest.raises(OSError, match="no database"):
                await Worker([limited], settings=broker.settings, lifespan=lifespan).run()
            assert broker.connections == 0

    run(main())


def test_a_worker_that_is_stopped_while_it_starts_ends() -> None:
    starting = asyncio.Event()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        starting.set()
        await asyncio.sleep(60)
        yield

    async def main() -> None:
        async with fake_broker() as broker:
            worker = Worker([limited], settings=broker.settings, lifespan=lifespan)
            running = asyncio.create_task(worker.run())
            await starting.wait()
            worker.stop()
            await asyncio.wait_for(running, 5)
            assert broker.connections == 0

    run(main())


def test_a_lifespan_is_left_where_the_broker_refuses() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        try:
            yield
        finally:
            events.append("end")

    async def refused(broker: FakeBroker) -> None:
        peer = await broker.peer()
        await peer.subscribed()
        await peer.socket.close(1008, "no")

    async def main() -> None:
        async with fake_broker() as broker:
            refusing = asyncio.create_task(refused(broker))
            with pytest.raises(ConnectionFailed):
                await Worker([limited], settings=broker.settings, lifespan=lifespan).run()
            await refusing
            assert events == ["end"]

    run(main())


def test_progress_in_a_tight_loop_of_a_thread_costs_little() -> None:
    @task(key="tight")
    def tight() -> float:
        import time

        begun = time.perf_counter()
        for n in range(50_000):
            current_run().progress(n)
        return time.perf_counter() - begun

    async def main() -> None:
        async with working(tight) as (_, peer):
            await peer.push(pushed("tight"))
            await peer.expect(m.Started)
            frames: list[m.Frame] = []
            while not isinstance(frame := await peer.next(), m.Finished):
                frames.append(frame)
            assert len(frames) <= 1 + result_of(frame) / 0.05
            assert result_of(frame) < 5

    run(main())


@pytest.mark.parametrize("pool", ["async", "thread", "process"])
def test_the_last_progress_is_sent_before_the_end(pool: str) -> None:
    @task(key="async")
    async def aquick() -> None:
        current_run().progress(1, 2)
        current_run().progress(2, 2)

    @task(key="thread")
    def quick() -> None:
        current_run().progress(1, 2)
        current_run().progress(2, 2)

    async def main() -> None:
        async with working(aquick, quick, cpu.quick) as (_, peer):
            await peer.push(pushed({"process": "cpu.quick"}.get(pool, pool)))
            await peer.expect(m.Started)
            frames: list[m.Frame] = []
            while not isinstance(frame := await peer.next(), m.Finished):
                frames.append(frame)
            assert isinstance(frames[-1], m.Progress)
            assert (frames[-1].current, frames[-1].total) == (2, 2)

    run(main())


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 10**400, "5", None], ids=["nan", "inf", "big", "text", "none"]
)
def test_what_is_no_number_is_no_progress(value: Any) -> None:
    @task(key="says")
    async def says() -> None:
        with pytest.raises(ArgumentError, match="progress: numbers are needed"):
            current_run().progress(value)
        if value is not None:
            with pytest.raises(ArgumentError, match="progress: numbers are needed"):
                current_run().progress(1, value)
        with pytest.raises(ArgumentError, match="can be snoozed for 0 to"):
            current_run().snooze(value)
        current_run().progress(1, message="half of a pair: \ud800")

    async def main() -> None:
        async with working(says) as (_, peer):
            await peer.push(pushed("says"))
            await peer.expect(m.Started)
            assert (await peer.expect(m.Progress)).message == "half of a pair: ?"
            assert result_of(await peer.expect(m.Finished)) is None

    run(main())
