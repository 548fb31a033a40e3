"""Cancelling in the test kit, whose broker and worker are the real ones: the whole way of a cancel."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from runlane import RunCancelled, RunFuture, StateType, cancel_many, current_run, task
from runlane.testing import SyncTestBroker, broker, sync_broker

from .tasks import add, log


@task(key="kit.cancelother")
async def cancel_other(run_id: str) -> str:
    return (await RunFuture.from_id(run_id).acancel()).value


@task(key="kit.suicide")
async def suicide() -> None:
    await RunFuture.from_id(current_run().id).acancel()  # the answer may come too late to be seen
    await asyncio.sleep(60)


@task(key="kit.checks", retries=3)
def checks() -> None:
    begun.set()
    while True:
        current_run().checkpoint()
        time.sleep(0.001)


@task(key="kit.stopchecks")
def stop_checks(run_id: str) -> str:
    assert begun.wait(10)
    return RunFuture.from_id(run_id).cancel().value


begun = threading.Event()


def test_a_run_that_is_cancelled_is_never_executed(kit: SyncTestBroker) -> None:
    first, second = add.delay(1, 2), add.options(delay=60).delay(3, 4)
    assert first.cancel() is StateType.CANCELLED
    assert second.cancel() is StateType.CANCELLED
    assert kit.drain() == []
    assert log == []
    assert [run.state_name for run in kit.runs()] == ["Cancelled"] * 2
    with pytest.raises(RunCancelled, match="was cancelled"):
        first.result()
    assert first.cancel() is StateType.CANCELLED


def test_what_has_ended_stays_as_it_is(kit: SyncTestBroker) -> None:
    futures = [add.delay(1, 2), add.delay(3, 4)]
    kit.drain()
    assert cancel_many([*futures, "00000000-0000-7000-8000-000000000000"]) == [StateType.COMPLETED] * 2 + [None]


def test_a_task_cancels_another_that_waits() -> None:
    with sync_broker(add, cancel_other) as kit:
        victim = add.options(delay=60).delay(1, 2)
        by = cancel_other.delay(victim.id)
        kit.drain()
        assert by.result() == "CANCELLED"
        assert victim.wait() is StateType.CANCELLED


def test_a_task_that_is_cancelled_while_it_runs_is_stopped_and_not_retried() -> None:
    async def main() -> None:
        async with broker(suicide) as kit:
            future = await suicide.options(retries=3).adelay()
            (run,) = await kit.drain()
            assert (run.state, run.attempt) == (StateType.CANCELLED, 1)
            with pytest.raises(RunCancelled):
                await future

    asyncio.run(main())


def test_a_plain_function_is_left_at_its_checkpoint() -> None:
    begun.clear()
    with sync_broker(checks, stop_checks, limit=2) as kit:
        victim = checks.delay()
        by = stop_checks.delay(victim.id)
        kit.drain()
        assert by.result() == "CANCELLING"
        assert (victim.wait(), [run.attempt for run in kit.runs(checks)]) == (StateType.CANCELLED, [1])
