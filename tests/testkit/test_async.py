"""`broker`: the same for async tests, and how both get along with event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from runlane import Client, agather, task
from runlane.client import current
from runlane.testing import broker, sync_broker

from . import tasks
from .tasks import add, broken, flaky, log, mul, where


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(bounded())


def test_submitted_from_both_worlds() -> None:
    async def main() -> None:
        async with broker(add, mul) as b:
            first, second = await add.adelay(2, 3), mul.delay(2, 3)
            ended = await b.drain()
            assert [entry.result for entry in ended] == [5, 6]
            assert await agather(first, second) == [5, 6]
            b.assert_submitted(add, a=2, b=3, times=1)

    run(main())


def test_a_future_can_be_awaited_while_it_is_drained() -> None:
    async def main() -> None:
        async with broker(flaky) as b:
            start = b.now
            future = await flaky.adelay(2)
            waiting = asyncio.create_task(future.aresult())
            assert await b.run_due() == []
            assert not waiting.done()
            await b.drain()
            assert await waiting == 2
            assert (b.now - start).total_seconds() == 3600

    run(main())


def test_async_tasks_execute_in_the_tests_own_loop_and_context() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="")
    seen: list[str] = []

    @task(key="kit.context")
    async def context() -> None:
        seen.append(variable.get())

    async def main() -> None:
        variable.set("of the test")
        async with broker(where, context) as b:
            await where.adelay()
            await context.adelay()
            await b.drain(raise_errors=True)
        assert log == [(asyncio.get_running_loop(), threading.current_thread())]
        assert seen == ["of the test"]

    run(main())


def test_errors_are_raised() -> None:
    async def main() -> None:
        async with broker(broken) as b:
            await broken.adelay("x")
            with pytest.raises(KeyError):
                await b.drain(raise_errors=True)
            await broken.adelay("y")
            with pytest.raises(KeyError, match="y"):
                await b.run_due(raise_errors=True)

    run(main())


def test_nothing_is_left_on_the_loop() -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        async with broker(add, tasks.waiting, limit=2) as b:
            futures = await add.amap(range(10))
            await tasks.waiting.adelay(1)
            await b.drain()
            assert (await futures[0]) == 3
        assert asyncio.all_tasks() == before
        assert current.innermost() is None

    run(main())


def test_a_client_of_the_code_under_test_is_not_asked() -> None:
    """An app that enters a client when it starts: what its tasks submit stays in the test all the same."""

    async def main() -> None:
        async with Client(), broker(add) as b:
            await add.adelay(1)
            b.assert_submitted(add, times=1)
        assert current.innermost() is None

    run(main())


def test_a_drain_that_is_cancelled_ends_at_once() -> None:
    async def main() -> None:
        async with broker(tasks.stuck) as b:
            await tasks.stuck.adelay()
            before = asyncio.all_tasks()  # the client's among them
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await b.drain()
            assert asyncio.all_tasks() == before
            assert [entry.state for entry in b.runs()] == ["SCHEDULED"]

    run(main())


def test_the_sync_flavour_in_an_event_loop() -> None:
    """What the `runlane_broker` fixture is in an async test: tasks execute in a loop of their own."""

    async def main() -> None:
        with sync_broker(add, where) as b:
            future = await add.adelay(2)
            await where.adelay()
            b.drain()
            assert await future == 5
        assert log[-1][0] is not asyncio.get_running_loop()

    run(main())


def test_loops_come_and_go_within_one_broker() -> None:
    with sync_broker(add) as b:
        for n in range(3):

            async def main(n: int = n) -> None:
                await add.adelay(n)

            run(main())
            b.drain()
        b.assert_submitted(add, times=3)


def test_brokers_come_and_go_within_one_loop() -> None:
    async def main() -> None:
        for n in range(3):
            with sync_broker(add) as b:
                await add.adelay(n)
                b.assert_submitted(add, a=n, times=1)
            async with broker(add) as b2:
                await add.adelay(n)
                assert len(await b2.drain()) == 1

    run(main())
