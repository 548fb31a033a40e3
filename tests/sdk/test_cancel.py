"""Giving runs up: futures that are cancelled, many at once, and what the broker may say or not say to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from runlane import (
    ArgumentError,
    CancelRefused,
    Client,
    RunFuture,
    RunNotFound,
    StateType,
    WouldBlock,
    acancel_many,
    cancel_many,
)
from runlane.client import cancels
from runlane.client.cancels import IDS_PER_FRAME, MAX_FRAMES_IN_FLIGHT
from runlane.protocol import messages as m
from runlane.protocol.ids import uuid7

from .auto_broker import AutoBroker, accept, auto_broker, finish
from .fake_broker import fake_broker, run

S = StateType


def answered(frame: m.Cancel, state: StateType | None = S.CANCELLED) -> m.Cancelled:
    """Say the same of each run; None: there is none."""
    if state is None:
        error = m.ItemError(code="not_found", message="no such run")
        return m.Cancelled(ref=frame.ref, runs=tuple(m.CancelledRun(id=one, error=error) for one in frame.ids))
    said = m.RunState(type=state, name=state.value.capitalize())
    return m.Cancelled(ref=frame.ref, runs=tuple(m.CancelledRun(id=one, state=said) for one in frame.ids))


def cancels_all(state: StateType | None) -> Any:
    def answer(frame: m.Frame) -> Iterable[m.Frame]:
        return [answered(frame, state)] if isinstance(frame, m.Cancel) else accept(frame)

    return answer


def frames_of(broker: AutoBroker) -> list[m.Cancel]:
    return [frame for frame in broker.heard if isinstance(frame, m.Cancel)]


@pytest.mark.parametrize("state", [S.CANCELLED, S.CANCELLING, S.COMPLETED])
def test_a_future_is_cancelled_and_says_what_became_of_the_run(state: StateType) -> None:
    with auto_broker(cancels_all(state)) as broker, Client(broker.settings) as client:
        future = RunFuture[Any](uuid7(), client)
        assert future.cancel() is state
        assert [frame.ids for frame in frames_of(broker)] == [(future.id,)]


def test_a_future_is_cancelled_in_an_event_loop() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            future = RunFuture[Any](uuid7(), client)
            with pytest.raises(WouldBlock, match="acancel"):
                future.cancel()
            with pytest.raises(WouldBlock, match="acancel_many"):
                cancel_many([future])
            cancelling = asyncio.create_task(future.acancel())
            peer = await broker.peer()
            await peer.send(answered(await peer.expect(m.Cancel), S.CANCELLING))
            assert await cancelling is S.CANCELLING

    run(main())


def test_there_is_no_such_run() -> None:
    with auto_broker(cancels_all(None)) as broker, Client(broker.settings) as client:
        run_id = uuid7()
        with pytest.raises(RunNotFound, match=run_id):
            RunFuture[Any](run_id, client).cancel()
        assert cancel_many([run_id]) == [None]


def test_what_is_known_to_have_ended_is_not_asked_about() -> None:
    with auto_broker(finish) as broker, Client(broker.settings) as client:
        future = RunFuture[Any](uuid7(), client)
        assert future.result() == 5
        assert future.cancel() is S.COMPLETED
        assert frames_of(broker) == []


def test_many_are_cancelled_in_short_frames_of_which_a_few_are_under_way() -> None:
    count = IDS_PER_FRAME * (MAX_FRAMES_IN_FLIGHT + 2) + 1
    ids = [uuid7() for _ in range(count)]

    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings):
            cancelling = asyncio.create_task(acancel_many(ids))
            peer = await broker.peer()
            frames = [await peer.expect(m.Cancel) for _ in range(MAX_FRAMES_IN_FLIGHT)]
            with pytest.raises(TimeoutError):
                await peer.next(0.02)
            await peer.send(answered(frames[0], S.CANCELLING))
            frames.append(await peer.expect(m.Cancel))
            for frame in frames[1:]:
                await peer.send(answered(frame))
            while len(frames) < MAX_FRAMES_IN_FLIGHT + 3:
                frames.append(await peer.expect(m.Cancel))
                await peer.send(answered(frames[-1]))
            states = await cancelling
            assert [one for frame in frames for one in frame.ids] == ids
            assert states == [S.CANCELLING] * IDS_PER_FRAME + [S.CANCELLED] * (count - IDS_PER_FRAME)

    run(main())


def test_none_at_all_are_cancelled_without_a_word() -> None:
    with auto_broker(accept) as broker, Client(broker.settings):
        assert cancel_many([]) == []
        assert broker.heard == []


def test_what_is_no_run_cannot_be_cancelled() -> None:
    with pytest.raises(ArgumentError, match="is no id of a run"):
        cancel_many(["nonsense"])


def test_what_had_no_answer_is_said_again_on_the_next_connection() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings):
            ids = [uuid7() for _ in range(IDS_PER_FRAME + 1)]
            cancelling = asyncio.create_task(acancel_many(ids))
            peer = await broker.peer()
            first, second = await peer.expect(m.Cancel), await peer.expect(m.Cancel)
            await peer.send(answered(first))
            peer.drop()
            peer = await broker.peer()
            again = await peer.expect(m.Cancel)
            if again.ids == first.ids:  # its answer was lost with the connection
                await peer.send(answered(again))
                again = await peer.expect(m.Cancel)
            assert again.ids == second.ids
            await peer.send(answered(again))
            assert await cancelling == [S.CANCELLED] * len(ids)

    run(main())


@pytest.mark.parametrize("code", ["draining", "busy"])
def test_a_broker_that_is_busy_or_goes_down_is_asked_again(code: str) -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings):
            cancelling = asyncio.create_task(acancel_many([uuid7()]))
            peer = await broker.peer()
            frame = await peer.expect(m.Cancel)
            if code == "busy":
                await peer.send(m.Busy(ref=frame.ref, retry_after_seconds=0.01))
            else:
                await peer.send(m.Error(code=code, message="later", frame="cancel", ref=frame.ref))
                peer.drop()
                peer = await broker.peer()
            again = await peer.expect(m.Cancel)
            assert again.ids == frame.ids
            await peer.send(answered(again))
            assert await cancelling == [S.CANCELLED]

    run(main())


def test_a_broker_that_does_not_cancel_says_so() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings):
            cancelling = asyncio.create_task(acancel_many([uuid7()]))
            peer = await broker.peer()
            frame = await peer.expect(m.Cancel)
            await peer.send(m.Error(code="unsupported", message="not here", frame="cancel", ref=frame.ref))
            with pytest.raises(CancelRefused, match="unsupported: not here"):
                await cancelling

    run(main())


def test_who_gives_up_waiting_has_nothing_more_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancels, "MAX_FRAMES_IN_FLIGHT", 1)

    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings):
            ids = [uuid7() for _ in range(2 * IDS_PER_FRAME)]
            given_up = asyncio.create_task(acancel_many(ids))
            peer = await broker.peer()
            frame = await peer.expect(m.Cancel)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            other = uuid7()
            cancelling = asyncio.create_task(acancel_many([other]))
            await asyncio.sleep(0)
            await peer.send(answered(frame))
            frame = await peer.expect(m.Cancel)
            assert frame.ids == (other,)
            await peer.send(answered(frame))
            assert await cancelling == [S.CANCELLED]

    run(main())


def test_a_sync_caller_waits_no_longer_than_told() -> None:
    late = pytest.raises(TimeoutError, match=r"has not cancelled run .* within 0.05 s")
    with auto_broker(accept) as broker, Client(broker.settings) as client, late:
        RunFuture[Any](uuid7(), client).cancel(0.05)
