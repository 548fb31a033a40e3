"""What a cancel does to a task, wherever it executes; and what is said of the run, and when."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from runlane import Client, RunFuture, Task, current_run, gather, task
from runlane.protocol import messages as m
from runlane.protocol.ids import uuid7
from tests.sdk.fake_broker import Peer, fake_broker, pushed, run

from . import cpu
from .support import error_of, result_of, working

#: Long enough for a report that should not come to come.
_MOMENT = 0.05


class Gate:
    """Tells that a task has come so far, and lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()


@task(key="brief")
async def brief() -> None: ...


async def begun(peer: Peer, key: str, **parameters: Any) -> m.PushedRun:
    """Have a task begin; what is said of slots before it does not matter."""
    one = pushed(key, **parameters)
    await peer.push(one)
    while isinstance(frame := await peer.next(), m.SetLimit):
        pass
    assert isinstance(frame, m.Started), frame
    return one


async def cancel(peer: Peer, one: m.PushedRun, grace: float = 5.0) -> None:
    await peer.send(m.CancelRun(id=one.id, attempt=one.attempt, grace_seconds=grace))


async def end_of(peer: Peer) -> m.Finished:
    """The next report, whatever is said of progress and slots before it; recorded."""
    while isinstance(report := await peer.next(), m.Progress | m.SetLimit):
        pass
    assert isinstance(report, m.Finished), report
    await peer.record(report)
    return report


async def silent(peer: Peer) -> None:
    with pytest.raises(TimeoutError):
        await peer.next(_MOMENT)


# --- In the event loop --------------------------------------------------------------------------------------


def test_an_async_task_is_cancelled_and_may_clean_up() -> None:
    cleaned: list[str] = []

    @task(key="tidy")
    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            assert current_run().cancelled
            current_run().checkpoint()  # does nothing here
            await asyncio.sleep(0.01)
            cleaned.append("done")
            raise

    async def main() -> None:
        async with working(tidy) as (_, peer):
            await cancel(peer, await begun(peer, "tidy"))
            report = await end_of(peer)
            assert (report.state.type, cleaned) == ("CANCELLED", ["done"])

    run(main())


@pytest.mark.parametrize("end", ["returns", "raises"])
def test_a_task_that_swallows_the_cancel_is_reported_when_it_ends_and_as_it_ends(end: str) -> None:
    go = asyncio.Event()

    @task(key="deaf")
    async def deaf() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await go.wait()
        if end == "raises":
            raise ValueError("no")
        return "done all the same"

    async def main() -> None:
        async with working(deaf) as (worker, peer):
            one = await begun(peer, "deaf")
            await cancel(peer, one)
            await silent(peer)
            await cancel(peer, one)  # again: nothing changes
            await silent(peer)
            assert worker.stuck == 0
            go.set()
            report = await end_of(peer)
            if end == "returns":
                assert result_of(report) == "done all the same"
            else:
                assert report.state.type == "CANCELLED"

    run(main())


def test_a_timeout_does_not_report_what_is_being_cancelled_and_still_runs() -> None:
    go = asyncio.Event()

    @task(key="deaf", timeout=0.2)
    async def deaf() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await go.wait()
            raise

    async def main() -> None:
        async with working(deaf) as (_, peer):
            await cancel(peer, await begun(peer, "deaf"))
            with pytest.raises(TimeoutError):
                await peer.next(0.4)
            go.set()
            assert (await end_of(peer)).state.type == "CANCELLED"

    run(main())


# --- In a thread --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["checkpoint", "progress"])
def test_a_plain_function_is_left_at_its_next_checkpoint(how: str) -> None:
    cleaned: list[int] = []

    @task(key="steps")
    def steps() -> None:
        n = 0
        try:
            while True:
                n += 1
                current_run().checkpoint() if how == "checkpoint" else current_run().progress(n)
                time.sleep(0.002)
        except Exception:
            cleaned.append(-1)  # a task's own handlers let it pass
        finally:
            current_run().progress(n)  # cleaning up is not interrupted again
            current_run().checkpoint()
            cleaned.append(n)

    async def main() -> None:
        async with working(steps) as (worker, peer):
            await cancel(peer, await begun(peer, "steps"))
            report = await end_of(peer)
            assert (report.state.type, bytes(report.error)) == ("CANCELLED", b"")
            assert len(cleaned) == 1
            assert cleaned[0] > 0
            assert worker.stuck == 0

    run(main())


def test_a_timeout_is_seen_at_a_checkpoint_too_and_frees_the_slot() -> None:
    ended = threading.Event()

    @task(key="steps", timeout=0.05)
    def steps() -> None:
        try:
            while True:
                current_run().checkpoint()
                time.sleep(0.002)
        finally:
            ended.set()

    async def main() -> None:
        async with working(steps) as (worker, peer):
            await begun(peer, "steps")
            report = await end_of(peer)
            assert (report.state.type, report.state.name) == ("FAILED", "TimedOut")
            assert await asyncio.to_thread(ended.wait, 5)
            while worker.stuck:
                await asyncio.sleep(0.001)

    run(main())


def test_a_plain_function_that_does_not_look_is_reported_when_it_ends_and_not_after_the_grace() -> None:
    gate = Gate()

    @task(key="deaf")
    def deaf() -> str:
        assert gate.go.wait(10)
        return "done"

    async def main() -> None:
        async with working(deaf, limit=1) as (worker, peer):
            await cancel(peer, await begun(peer, "deaf"), grace=0.01)
            await silent(peer)
            assert worker.stuck == 0
            gate.go.set()
            assert result_of(await end_of(peer)) == "done"

    run(main())


def test_a_failure_of_a_function_that_was_asked_to_stop_keeps_its_message() -> None:
    @task(key="angry")
    def angry() -> None:
        while not current_run().cancelled:
            time.sleep(0.002)
        raise ValueError("half done")

    async def main() -> None:
        async with working(angry) as (_, peer):
            await cancel(peer, await begun(peer, "angry"))
            assert error_of(await end_of(peer))["message"] == "half done"  # the broker makes CANCELLED of it

    run(main())


def test_a_cancelled_error_of_a_tasks_own_is_a_failure() -> None:
    @task(key="own")
    def own() -> None:
        raise asyncio.CancelledError("mine")

    async def main() -> None:
        async with working(own) as (_, peer):
            await begun(peer, "own")
            assert error_of(await end_of(peer))["type"] == "asyncio.exceptions.CancelledError"

    run(main())


@pytest.mark.parametrize("how", ["result", "wait", "gather", "too late"])
def test_a_plain_function_that_waits_for_another_run_is_left_there(how: str) -> None:
    cleaned: list[str] = []
    gate = Gate()

    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            other = RunFuture[Any](uuid7(), client)

            @task(key="parent")
            def parent() -> None:
                if how == "too late":  # it is to stop before it begins to wait
                    gate.reached.set()
                    assert gate.go.wait(10)
                try:
                    gather(other) if how == "gather" else other.wait() if how == "wait" else other.result()
                finally:
                    try:
                        other.wait(0.01)
                    except TimeoutError:  # cleaning up is not interrupted again
                        cleaned.append("done")

            async with working(parent, broker=broker) as (worker, peer):
                one = await begun(peer, "parent")
                if how == "too late":
                    assert await asyncio.to_thread(gate.reached.wait, 5)
                    await cancel(peer, one)
                    await silent(peer)
                    gate.go.set()
                else:
                    await (await broker.peer()).expect(m.Watch)
                    await cancel(peer, one)
                report = await end_of(peer)
                assert (report.state.type, cleaned, worker.stuck) == ("CANCELLED", ["done"], 0)

    run(main())


# --- In a process -------------------------------------------------------------------------------------------


def test_a_process_is_asked_at_its_checkpoints_and_killed_after_the_grace() -> None:
    async def main() -> None:
        async with working(cpu.checks, cpu.sleep, cpu.pid, limit=1) as (_, peer):
            one = await begun(peer, "cpu.checks")
            await cancel(peer, one, grace=30.0)
            assert (await end_of(peer)).state.type == "CANCELLED"
            one = await begun(peer, "cpu.sleep", seconds=60.0)
            await cancel(peer, one, grace=0.01)
            assert (await end_of(peer)).state.type == "CANCELLED"
            await begun(peer, "cpu.pid")
            assert result_of(await end_of(peer)) > 0  # the slot is free, and has a process

    run(main())


def test_a_process_that_waits_for_another_run_is_left_there() -> None:
    async def main() -> None:
        async with fake_broker() as broker, working(cpu.waits, broker=broker) as (_, peer):
            one = await begun(peer, "cpu.waits", url=broker.settings.url, other=uuid7())
            await (await broker.peer()).expect(m.Watch)
            await cancel(peer, one, grace=60.0)
            assert (await end_of(peer)).state.type == "CANCELLED"

    run(main())


# --- Before, and at the same time ---------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_a_run_that_is_cancelled_before_it_begins_never_does(pool: str) -> None:
    calls: list[int] = []
    gate = Gate()

    @task(key="first", pool="thread")
    def first() -> None:
        gate.reached.set()
        assert gate.go.wait(10)

    @task(key="second", pool="thread")
    def second() -> None:
        calls.append(1)

    @task(key="third")
    async def third() -> None:
        calls.append(1)

    waits: Task[..., Any] = second if pool == "thread" else third

    async def main() -> None:
        async with working(first, waits, limit=1) as (_, peer):
            await begun(peer, "first")
            one = pushed(waits.key)  # more than there are slots: it waits for one
            await peer.push(one)
            await cancel(peer, one)
            report = await end_of(peer)
            assert (report.id, report.state.type) == (one.id, "CANCELLED")
            gate.go.set()
            await end_of(peer)
            assert calls == []

    run(main())


def test_a_cancel_that_crosses_the_report_changes_nothing() -> None:
    @task(key="quick")
    async def quick() -> int:
        return 1

    async def main() -> None:
        async with working(quick) as (_, peer):
            one = await begun(peer, "quick")
            report = await peer.expect(m.Finished)
            await cancel(peer, one)
            await silent(peer)
            await peer.record(report)
            await cancel(peer, one)
            assert result_of(report) == 1
            await begun(peer, "quick")
            assert result_of(await end_of(peer)) == 1

    run(main())


def test_a_lease_that_is_lost_leaves_a_function_at_its_checkpoint_without_a_word() -> None:
    ended = threading.Event()

    @task(key="steps")
    def steps() -> None:
        try:
            while True:
                current_run().checkpoint()
                time.sleep(0.002)
        finally:
            ended.set()

    async def main() -> None:
        async with working(steps, brief, limit=2) as (_, peer):
            one = await begun(peer, "steps")
            await peer.send(m.LeaseLost(id=one.id, attempt=1))
            assert await asyncio.to_thread(ended.wait, 5)
            await begun(peer, "brief")
            assert (await end_of(peer)).id != one.id
            assert not any(isinstance(frame, m.Finished) and frame.id == one.id for frame in peer.heard)

    run(main())
