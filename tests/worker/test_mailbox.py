"""Calls and progress from other threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from runlane.protocol.messages import Progress
from runlane.worker.mailbox import Mailbox
from runlane.worker.progress import LatestProgress
from runlane.worker.slots import Slots
from tests.sdk.fake_broker import run


def test_all_that_is_posted_is_called_in_order_and_the_loop_is_woken_once_for_many() -> None:
    async def main() -> None:
        box, called = Mailbox(), list[int]()
        done = asyncio.Event()
        box.post(called.append, -1)  # before it is open
        box.open()
        loop = asyncio.get_running_loop()
        wakes = 0
        wake = loop.call_soon_threadsafe

        def count(*args: object, **kwargs: object) -> object:
            nonlocal wakes
            wakes += 1
            return wake(*args, **kwargs)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = count  # type: ignore[method-assign]
        for n in range(1000):
            box.post(called.append, n)
        box.post(done.set)
        await done.wait()
        assert called == list(range(-1, 1000))
        assert wakes <= 1

    run(main())


def test_nothing_is_lost_between_threads() -> None:
    async def main() -> None:
        box, called, done = Mailbox(), list[tuple[int, int]](), asyncio.Event()
        box.open()

        def note(thread: int, n: int) -> None:
            called.append((thread, n))
            if len(called) == 4 * 5000:
                done.set()

        def post(thread: int) -> None:
            for n in range(5000):
                box.post(note, thread, n)

        threads = [threading.Thread(target=post, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        await done.wait()
        for thread in threads:
            thread.join()
        for n in range(4):
            assert [call for call in called if call[0] == n] == [(n, i) for i in range(5000)]

    run(main())


def test_a_call_that_fails_is_logged_and_the_others_are_made(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        box, done = Mailbox(), asyncio.Event()
        box.open()
        box.post(lambda: [][0])
        box.post(done.set)
        await done.wait()
        return box

    box = run(main())
    assert "IndexError" in caplog.text
    box.post(print)  # after the loop's end: nothing


def test_of_progress_the_latest_is_taken_and_told_once() -> None:
    told: list[LatestProgress] = []
    latest = LatestProgress(told.append)
    frames = [Progress(id="1", attempt=1, current=n) for n in range(3)]
    for frame in frames:
        latest.put(frame)
    assert len(told) == 1
    assert latest.take() is frames[-1]
    assert latest.take() is None
    latest.put(frames[0])
    assert len(told) == 2


def test_slots_tell_how_many_there_are() -> None:
    told: list[int] = []
    slots = Slots(2, told.append)
    assert (slots.take(), slots.take(), slots.take()) == (True, True, False)
    slots.stick()
    slots.give_back()
    assert (slots.take(), slots.take()) == (True, False)
    slots.pause(paused=True)
    slots.unstick()
    slots.pause(paused=False)
    slots.pause(paused=False)
    assert repr(slots) == "<Slots 1 of 2 taken, 0 stuck>"
    slots.close()
    assert told == [1, 0, 2, 0]
