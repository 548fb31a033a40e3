"""Fenced tasks stop before their lease can be elsewhere; the others go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import msgspec
import pytest

from runlane import Task, Worker, task
from runlane.protocol import messages as m
from runlane.worker.execution import Execution
from runlane.worker.fence import Fence, margin
from tests.sdk.fake_broker import FakeBroker, Peer, fake_broker, pushed, run

RESUME = 0.8


class Stage:
    def __init__(self) -> None:
        self.ended: dict[str, float] = {}

        @task(key="fenced", fence=True)
        async def fenced() -> None:
            await self._wait("fenced")

        @task(key="free")
        async def free() -> None:
            await self._wait("free")

        self.tasks: list[Task[..., Any]] = [fenced, free]

    async def _wait(self, key: str) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            self.ended[key] = time.monotonic()


@asynccontextmanager
async def working(
    stage: Stage, *, fence: bool = False, idle_beat: float = 0.2
) -> AsyncIterator[tuple[FakeBroker, Peer]]:
    async with fake_broker() as broker:
        broker.welcome = msgspec.structs.replace(
            broker.welcome, beat_seconds=0.2, idle_beat_seconds=idle_beat, resume_seconds=RESUME
        )
        running = asyncio.create_task(Worker(stage.tasks, settings=broker.settings, fence=fence).run())
        try:
            peer = await broker.peer()
            await peer.subscribed()
            yield broker, peer
        finally:
            await broker.end(running)


async def heard(peer: Peer, seconds: float) -> float:
    """Answer beats for so long; return when the last one was answered, at the latest."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(TimeoutError):
            await peer.next(0.05)
    return time.monotonic()


async def refuse(_: Any) -> bool:
    return False


@pytest.mark.parametrize("everything", [False, True])
def test_what_is_fenced_is_cancelled_within_the_grace_of_a_broker_that_says_nothing(everything: bool) -> None:
    async def main() -> None:
        stage = Stage()
        async with working(stage, fence=everything) as (_, peer):
            await peer.push(pushed("fenced"), pushed("free"))
            last = await heard(peer, 1.5 * RESUME)
            assert not stage.ended  # as long as the broker answers
            await asyncio.sleep(RESUME)
            assert stage.ended.keys() == ({"fenced", "free"} if everything else {"fenced"})
            assert stage.ended["fenced"] < last + RESUME

    run(main())


def test_what_was_fenced_off_is_not_held_any_more() -> None:
    async def main() -> None:
        stage = Stage()
        async with working(stage) as (broker, peer):
            one, other = pushed("fenced"), pushed("free")
            await peer.push(one, other)
            await peer.expect(m.Started)
            await peer.expect(m.Started)
            peer.drop()
            broker.before_auth = refuse
            await asyncio.sleep(RESUME)
            assert stage.ended.keys() == {"fenced"}
            broker.before_auth = None
            peer = await broker.peer()
            subscribe = await peer.subscribed(resumed=(other.id,))
            assert [held.id for held in subscribe.running] == [other.id]

    run(main())


def test_a_run_that_comes_after_a_long_silence_waits_for_an_answer() -> None:
    async def main() -> None:
        stage = Stage()
        async with working(stage, idle_beat=20.0) as (_, peer):
            await asyncio.sleep(RESUME)
            await peer.push(one := pushed("fenced"))
            async with asyncio.timeout(1):
                beat = msgspec.json.decode(await peer.socket.recv(), type=m.Beat)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.15):
                    print(await peer.socket.recv())
            await peer.send(beat)
            assert (await peer.expect(m.Started)).id == one.id

    run(main())


def test_a_run_that_waits_in_vain_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runlane.worker.executor.BEGIN_SECONDS", 0.3)

    async def main() -> None:
        stage = Stage()
        async with working(stage, idle_beat=20.0) as (_, peer):
            await asyncio.sleep(RESUME)
            await peer.push(pushed("fenced"), pushed("free"))
            frames: list[dict[str, Any]] = []
            while not frames or frames[-1]["type"] != "release":
                async with asyncio.timeout(3):
                    decoded = msgspec.json.decode(await peer.socket.recv())
                frames += decoded if isinstance(decoded, list) else [decoded]
            assert [frame["type"] for frame in frames if frame["type"] == "started"] == ["started"]
            assert not stage.ended

    run(main())


class Lease:
    def __init__(self) -> None:
        self.safe_until = 0.0
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1


class Run:
    def __init__(self, name: str) -> None:
        self.key = (name, 1)


def test_the_fence_by_itself() -> None:
    async def main() -> None:
        lease, stopped = Lease(), asyncio.Queue[Any]()
        fence = Fence(lease, stopped.put_nowait)
        first, second = cast("Execution", Run("1")), cast("Execution", Run("2"))
        assert not fence.admit(first)
        assert list(fence.answered()) == []
        lease.safe_until = time.monotonic() + 0.1
        assert list(fence.answered()) == [first]
        assert fence.admit(second)
        assert lease.asked == 1
        lease.safe_until = time.monotonic() + 0.2  # an answer moves it
        fence.answered()
        begun = time.monotonic()
        assert {await stopped.get(), await stopped.get()} == {first, second}
        assert time.monotonic() - begun >= 0.15
        lease.safe_until = time.monotonic() + 0.05
        assert fence.admit(first)
        fence.remove(first.key)
        await asyncio.sleep(0.1)
        assert stopped.empty()
        assert repr(fence) == "<Fence 0 executions, 0 waiting>"

    run(main())


def test_the_margin_is_a_second_or_a_quarter_of_the_grace() -> None:
    assert [margin(seconds) for seconds in (0.0, 1.0, 5.0)] == [0.0, 0.25, 1.0]
