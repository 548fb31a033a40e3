"""A worker whose slots all wait for other runs says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from runlane import Client, RunFuture, Settings, Task, task
from runlane.client.portal import portals
from runlane.protocol import messages as m
from runlane.protocol.ids import uuid7
from runlane.worker import standstill
from tests.sdk.fake_broker import completed, fake_broker, pushed, run

from . import cpu
from .support import result_of, working


@task(key="await")
async def await_(url: str, awaited: str) -> int:
    return await RunFuture[int](awaited, Client(Settings(url=url)))


@task(key="wait")
def wait(url: str, awaited: str) -> int:
    return RunFuture[int](awaited, Client(Settings(url=url))).result()


@task(key="look")
async def look(url: str, awaited: str) -> bool:
    """Look at a run without waiting for it."""
    future = RunFuture[int](awaited, Client(Settings(url=url)))
    while not future.done():
        await asyncio.sleep(0.001)
    return True


class Said(logging.Handler):
    """The warnings, as the worker's thread gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    async def some(self) -> str:
        async with asyncio.timeout(10):
            while not self.messages:
                await asyncio.sleep(0.005)
        return self.messages[0]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[Said]:
    """Collect what is said of a standstill: at once, and not again."""
    monkeypatch.setattr(standstill, "PATIENCE_SECONDS", 0.0)
    logger, handler = logging.Logger("standstill"), Said()
    logger.addHandler(handler)
    monkeypatch.setattr(standstill, "log", logger)
    yield handler
    portals.close()


@pytest.mark.parametrize("waits", [await_, wait, pytest.param(cpu.wait, marks=pytest.mark.process)])
def test_all_slots_wait_for_other_runs(waits: Task[..., int], said: Said) -> None:
    async def main() -> None:
        awaited = uuid7()
        async with fake_broker() as broker, working(waits, limit=1, broker=broker) as (_, peer):
            await peer.push(pushed(waits.key, url=broker.settings.url, awaited=awaited))
            producer = await broker.peer()
            await producer.expect(m.Watch)
            warned = await said.some()
            assert f"all 1 slots are held by runs that wait for other runs ({waits.key})" in warned
            assert "--limit" in warned
            await producer.send(completed(awaited))
            assert result_of(await peer.finished()) == 5
            producer.drop()

    run(main())


def test_a_free_slot_or_a_look_is_no_standstill(said: Said) -> None:
    async def main() -> None:
        awaited, looked_at = uuid7(), uuid7()
        async with fake_broker() as broker, working(wait, look, limit=2, broker=broker) as (_, peer):
            url = broker.settings.url
            await peer.push(pushed("wait", url=url, awaited=awaited), pushed("look", url=url, awaited=looked_at))
            producers = [await broker.peer() for _ in range(2)]
            for producer in producers:
                watched = await producer.expect(m.Watch)
                await producer.send(*(completed(run_id) for run_id in watched.ids))
            frames = [await peer.next() for _ in range(4)]
            results = [result_of(frame) for frame in frames if isinstance(frame, m.Finished)]
            assert sorted(results) == [True, 5]
            for producer in producers:
                producer.drop()
        assert said.messages == []

    run(main())
