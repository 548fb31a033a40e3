"""Who waits for a turn of the event loop, and how many turns there are in one of its passes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest

from runlane_broker.gateway import talk
from runlane_broker.serving import deadlines
from runlane_broker.serving.turns import (
    CROWD,
    LATELY,
    PASS_SECONDS,
    STRANGERS_REST,
    VAIN_REST,
    Standing,
    Turns,
    standing_of,
)

from .harness import SUBMISSION, WORKER, Host, Peer, authenticated, new_run, producer, run, worker

BEAT = {"type": "beat", "n": 1}


async def passes_of(turns: Turns, count: int, work: Callable[[], Any]) -> list[list[int]]:
    """Ask for turns, work in each; return which were had in each pass of the loop."""
    had: list[int] = []

    def take(number: int) -> None:
        work()
        had.append(number)

    for number in range(count):
        turns.call(lambda number=number: take(number))
    passes: list[list[int]] = []
    while sum(map(len, passes)) < count:
        before = len(had)
        await asyncio.sleep(0)
        passes.append(had[before:])
    return passes


def test_turns_that_take_long_are_had_one_in_a_pass_and_in_their_order() -> None:
    now = 0.0

    def work() -> None:
        nonlocal now
        now += 5 * PASS_SECONDS

    async def main() -> list[list[int]]:
        return [passed for passed in await passes_of(Turns(lambda: now), 50, work) if passed]

    passes = asyncio.run(main())
    assert [number for passed in passes for number in passed] == list(range(50))
    assert max(map(len, passes)) <= 2, "it is seen in the next pass what one took"
    assert len(passes) >= 48


def test_turns_that_take_no_time_are_had_by_the_dozen() -> None:
    async def main() -> list[list[int]]:
        return await passes_of(Turns(lambda: 0.0), 5000, lambda: None)

    passes = asyncio.run(main())
    assert len(passes) < 5000 / 32
    assert max(map(len, passes)) <= 64


def test_who_talks_in_vain_has_turns_a_third_of_the_time_and_strangers_have_theirs_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    rests: list[float] = []
    had: list[str] = []

    async def main() -> None:
        nonlocal now
        loop = asyncio.get_running_loop()

        def later(seconds: float, callback: Callable[[], None]) -> None:
            rests.append(seconds)
            resting.append(callback)

        async def in_vain() -> None:
            nonlocal now
            await turns.next(vain=True)
            now += 3 * PASS_SECONDS  # the work is done in a task, after the turn
            had.append("vain")

        async def stranger() -> None:
            await turns.next()
            had.append("stranger")

        resting: list[Callable[[], None]] = []
        monkeypatch.setattr(loop, "call_later", later)
        turns = Turns(lambda: now)
        turns.served()
        tasks = [asyncio.create_task(one()) for one in (in_vain, in_vain, stranger)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert sorted(had) == ["stranger", "vain"], "the other one waits for the end of the rest"
        while resting:
            resting.pop()()
        for _ in range(10):
            await asyncio.sleep(0)
        assert sorted(had) == ["stranger", "vain", "vain"]
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert len(rests) == 3
    assert max(rests) == pytest.approx(VAIN_REST * 3 * PASS_SECONDS)


def test_a_crowd_of_strangers_is_served_without_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda seconds, _: rests.append(seconds))
        turns = Turns(lambda: 0.0)
        turns.served()
        tasks = [asyncio.create_task(turns.next()) for _ in range(4 * CROWD)]
        while not rests:
            await asyncio.sleep(0)
        assert sum(task.done() for task in tasks) > 3 * CROWD - 64
        for task in tasks:
            task.cancel()

    asyncio.run(main())


def test_after_turns_of_strangers_there_is_a_rest_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    now = 0.0

    async def main() -> None:
        nonlocal now
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda seconds, _: rests.append(seconds))
        turns = Turns(lambda: now)
        turns.served()
        await turns.next()
        now += PASS_SECONDS
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert rests == pytest.approx([STRANGERS_REST * PASS_SECONDS])


@pytest.mark.parametrize("vain", [False, True])
def test_there_are_rests_only_for_those_who_were_served_lately(
    monkeypatch: pytest.MonkeyPatch, *, vain: bool
) -> None:
    now = 1000.0
    resting: list[Callable[[], None]] = []

    async def main() -> None:
        nonlocal now
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", lambda _, callback: resting.append(callback))
        monkeypatch.setattr(loop, "time", lambda: now)
        turns = Turns(lambda: 0.0)

        async def rests() -> bool:
            await turns.next(vain=vain)
            for _ in range(5):
                await asyncio.sleep(0)
            rested = bool(resting)
            while resting:
                resting.pop()()
            await asyncio.sleep(0)
            return rested

        assert not await rests()
        turns.served()
        assert await rests()
        now += 0.9 * LATELY
        assert await rests()
        now += 0.2 * LATELY
        assert not await rests()

    asyncio.run(main())


def test_a_turn_that_nobody_waits_for_any_more_is_passed_on() -> None:
    async def main() -> None:
        turns = Turns()
        waiting = [asyncio.create_task(turns.next()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(waiting[0], waiting[2])
        assert waiting[1].cancelled()

    asyncio.run(main())


def test_a_turn_that_fails_costs_nobody_else_his() -> None:
    async def main() -> tuple[list[int], list[str]]:
        failed: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failed.append(str(context["exception"])))
        turns = Turns(lambda: 0.0)
        had: list[int] = []

        def take(number: int) -> None:
            if number == 3:
                raise ValueError("a mistake")
            had.append(number)

        for number in range(12):
            turns.call(partial(take, number))
        await turns.next()
        return had, failed

    assert asyncio.run(main()) == ([n for n in range(12) if n != 3], ["a mistake"])


def test_only_who_is_not_trusted_waits() -> None:
    async def main() -> None:
        standing = Standing(Turns())
        assert not standing.waits
        standing.trusted = False
        assert standing.waits
        waiting = asyncio.create_task(standing.turn())
        await asyncio.sleep(0)
        assert not waiting.done()
        async with asyncio.timeout(5):
            await waiting
        alone = standing_of({"type": "websocket"})
        alone.trusted = False
        assert not alone.waits, "another server has no turns"

    asyncio.run(main())


def test_who_is_of_use_for_the_first_time_is_nobody_to_rest_for() -> None:
    async def main() -> None:
        turns = Mock()
        standing = Standing(turns)
        standing.trusted = False
        standing.judge(vain=False)
        assert not standing.trusted
        standing.judge(vain=False, of_use=True)
        assert standing.trusted
        turns.served.assert_not_called()
        standing.judge(vain=False)
        turns.served.assert_not_called()
        standing.judge(vain=False, of_use=True)
        turns.served.assert_called_once()
        standing.judge(vain=True, of_use=True)
        assert not standing.trusted
        Standing(None).judge(vain=False, of_use=True)

    asyncio.run(main())


def is_trusted(host: Host, peer: Peer) -> bool:
    """Say whether the broker trusts a connection."""
    return standing(host, peer).trusted


def standing(host: Host, peer: Peer) -> Standing:
    """Return how the broker's end of a connection stands."""
    port = peer.socket.local_address[1]

    def look() -> Standing:
        every = [p for p in gc.get_objects() if issubclass(type(p), deadlines.PromptWebSocket)]
        (ours,) = [p for p in every if p in p.connections and p.client[1] == port]
        return ours._standing

    return host.call(look)


def test_who_has_been_of_use_is_trusted_until_it_talks_in_vain(broker: Host) -> None:
    async def main() -> None:
        async with producer(broker) as peer:
            assert not is_trusted(broker, peer), "nobody knows it"
            await peer.submit(new_run("edge.turns"))
            assert is_trusted(broker, peer)
            await peer.say([BEAT] * int(0.3 * talk.BURST))
            await peer.answers()
            assert not is_trusted(broker, peer)
            await peer.submit(new_run("edge.turns"))
            assert not is_trusted(broker, peer), "it has hardly stopped"
            assert standing(broker, peer).vain

    run(main())


def test_a_worker_is_trusted_when_it_has_finished_a_run(broker: Host) -> None:
    async def main() -> None:
        async with producer(broker) as sender, worker(broker, "edge.turns.worker") as peer:
            await sender.submit(new_run("edge.turns.worker"))
            (pushed,) = await peer.pushed()
            assert not is_trusted(broker, peer)
            await peer.finish(pushed, result=1)
            assert is_trusted(broker, peer)

    run(main())


@pytest.mark.parametrize("path", [WORKER, SUBMISSION])
def test_strangers_are_answered_while_others_flood(
    broker: Host, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(talk, "BURST", 1e9)
    monkeypatch.setattr(talk.Talk, "is_sparing", False)

    async def flood() -> None:
        async with producer(broker) as peer:
            await peer.say(*([BEAT] * 100 for _ in range(50)))
            await peer.answers(5000)

    async def say_hello() -> None:
        async with authenticated(broker, path):
            pass

    async def main() -> None:
        every: list[Awaitable[None]] = [*(flood() for _ in range(5)), *(say_hello() for _ in range(20))]
        await asyncio.gather(*every)

    run(main())
