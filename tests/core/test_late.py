"""Why runs are late: each cause set up on a whole broker, for task runs and for flow runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runlane.config import ServicesSection
from runlane.protocol.states import StateType
from runlane_broker.services.late_runs import MarkLateRuns
from runlane_broker.settings import Settings
from runlane_broker.storage.operations.handing_out import Asked
from runlane_broker.storage.operations.late import STEP, MarkFlowRunsLate, MarkTaskRunsLate
from runlane_broker.storage.records import NewFlowRun

from ..support import make_run, new_database, new_id, run
from .harness import Broker, broker
from .test_pushing import SCHEDULED, flow_run, pool, set_state, state, update

#: Sets a cause up and returns the run that is late by it.
Cause = Callable[[Broker], Awaitable[str]]


async def _said(b: Broker, run_id: str, history: Callable[[str], Awaitable[Any]]) -> str:
    b.clock.advance(16)
    await MarkLateRuns(b.core).run_once()
    (late,) = [state for state in await history(run_id) if state.name == "Late"]
    return late.message.removeprefix("The run has not started in time: ").removesuffix(".")


# --- Task runs ----------------------------------------------------------------------------------------------


async def _no_worker(b: Broker) -> str:
    await b.worker("other")
    return await b.producer().queued("k", tags=("t",))


async def _worker_gone(b: Broker) -> str:
    (await b.worker("k")).disconnect()
    return await b.producer().queued("k")


async def _worker_full(b: Broker) -> str:
    worker = await b.worker("k", limit=1)
    await b.producer().queued("k")
    await worker.wait_for("run")
    return await b.producer().queued("k")


async def _worker_full_and_tag_too(b: Broker) -> str:
    await b.core.tag_limits.put("t", 0)
    await _worker_full(b)
    return await b.producer().queued("k", tags=("t",))


async def _workers_full(b: Broker) -> str:
    workers = [await b.worker("k", "l", limit=1) for _ in range(2)]
    for worker in workers:
        await b.producer().queued("l")
        await worker.wait_for("run")
    return await b.producer().queued("k")


async def _worker_takes_nothing(b: Broker) -> str:
    await b.worker("k", limit=0)
    return await b.producer().queued("k")


async def _soon(b: Broker) -> str:
    worker = await b.worker("k")
    b.core.dispatcher.pause(worker.own.id)  # its socket is slow: it is given nothing for now
    return await b.producer().queued("k")


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (_no_worker, "no worker serves this task"),
        (_worker_gone, "no worker serves this task"),
        (_worker_full, "the worker of this task has no free slot"),
        (_worker_full_and_tag_too, "the worker of this task has no free slot"),
        (_workers_full, "all 2 workers of this task have no free slot"),
        (_worker_takes_nothing, "the worker of this task has no free slot"),
        (_soon, "it is its turn soon: there is a free slot"),
    ],
)
def test_why_a_task_run_is_late(tmp_path: Path, cause: Cause, reason: str) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            assert await _said(b, await cause(b), b.core.store.history) == reason

    run(main())


# --- Flow runs ----------------------------------------------------------------------------------------------


async def _queue_paused(b: Broker) -> str:
    await pool(b, "a")
    await update(b, "a", is_paused=True)
    await b.worker("p/a")
    return await flow_run(b)


async def _pool_paused(b: Broker) -> str:
    await pool(b, "a")
    await b.core.queues.update_pool("p", {"is_paused": True})
    await b.worker("p/a")
    return await flow_run(b)


async def _queue_full(b: Broker) -> str:
    await pool(b, "a", a=1)
    worker = await b.worker("p/a", limit=9)
    await flow_run(b)
    await worker.wait_for("run")
    return await flow_run(b)


async def _pool_full(b: Broker) -> str:
    await pool(b, "a", "b", limit=1)
    await set_state(b, await flow_run(b, "b"), StateType.PENDING)
    await b.worker("p/a", limit=9)
    return await flow_run(b)


async def _not_polled(b: Broker) -> str:
    await pool(b, "a")
    return await flow_run(b)


async def _polled_long_ago(b: Broker) -> str:
    await pool(b, "a")
    await b.core.queues.hand_out_of_pool("p", None, Asked(1))
    b.clock.advance(60)
    return await flow_run(b)


async def _not_taken_by_who_polls(b: Broker) -> str:
    await pool(b, "a")
    run_id = await flow_run(b)
    handed = await b.core.queues.hand_out_of_pool("p", None, Asked(1))
    assert [one.run_id for one in handed] == [run_id]
    return run_id


async def _not_taken_by_who_is_pushed(b: Broker) -> str:
    await pool(b, "a")
    worker = await b.worker("p/a", limit=1)
    await flow_run(b)
    await worker.wait_for("run")
    return await flow_run(b)


async def _pushed_workers_full(b: Broker) -> str:
    await pool(b, "a", "b")
    for worker in [await b.worker("p/a", "p/b", "k", limit=1) for _ in range(2)]:
        await flow_run(b, "b")
        await worker.wait_for("run")
    return await flow_run(b)


async def _pushed_soon(b: Broker) -> str:
    await pool(b, "a")
    b.core.dispatcher.pause((await b.worker("p/a")).own.id)
    return await flow_run(b)


async def _pushed_worker_gone(b: Broker) -> str:
    await pool(b, "a")
    (await b.worker("p/a")).disconnect()
    return await flow_run(b)


async def _queue_renamed(b: Broker) -> str:
    run_id = await _not_taken_by_who_is_pushed(b)
    await update(b, "a", name="z")
    return run_id


async def _queue_made_again(b: Broker) -> str:
    await pool(b, "a")
    await b.worker("p/a")
    await b.core.queues.delete_pool("p")
    return await _not_polled(b)


async def _no_queue(b: Broker) -> str:
    flow = await b.core.flows.create("flow", (), {})
    return (await b.core.transitions.create_flow_run(NewFlowRun(new_id(), flow.id, "run", SCHEDULED))).id


async def _queue_deleted(b: Broker) -> str:
    await pool(b, "a")
    run_id = await flow_run(b)
    await b.core.queues.delete_pool("p")
    return run_id


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (_queue_paused, "the work queue is paused"),
        (_pool_paused, "the work pool is paused"),
        (_queue_full, "the concurrency limit of the work queue is reached"),
        (_pool_full, "the concurrency limit of the work pool is reached"),
        (_not_polled, "nobody polls the work queue"),
        (_polled_long_ago, "nobody polls the work queue"),
        (_not_taken_by_who_polls, "those who poll the work queue have not started it"),
        (_not_taken_by_who_is_pushed, "the worker of this work queue has no free slot"),
        (_pushed_workers_full, "all 2 workers of this work queue have no free slot"),
        (_pushed_soon, "it is its turn soon: there is a free slot"),
        (_queue_renamed, "the worker of this work queue has no free slot"),
        (_queue_made_again, "nobody polls the work queue"),
        (_pushed_worker_gone, "those who poll the work queue have not started it"),
        (_no_queue, "it has no work queue"),
        (_queue_deleted, "it has no work queue"),
    ],
)
def test_why_a_flow_run_is_late(tmp_path: Path, cause: Cause, reason: str) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            assert await _said(b, await cause(b), b.core.store.flow_runs.states) == reason

    run(main())


# --- Passes -------------------------------------------------------------------------------------------------


def _patient(seconds: float) -> Settings:
    return replace(Settings(), services=replace(ServicesSection(), late_after_of={"slow": seconds}))


def test_runs_that_are_not_to_be_marked_are_passed_by_once(tmp_path: Path) -> None:
    """A pass over 400 of them ends, and reads each batch once; what is behind them is marked."""

    async def main() -> None:
        async with broker(new_database(tmp_path), settings=_patient(3600.0)) as b:
            await b.producer().submitted(*(make_run("slow") for _ in range(400)))
            behind = await b.producer().queued("k", due=b.clock.now() + 1)
            b.clock.advance(20)
            written = len(b.executor.groups)
            async with asyncio.timeout(30):
                assert await MarkLateRuns(b.core).run_once() == {"task_runs": 1, "flow_runs": 0}
            assert (await b.run(behind)).state.name == "Late"
            assert len(b.executor.groups) - written <= 400 // STEP + 2

    run(main())


def test_what_starts_between_two_batches_is_never_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are read as overdue when the pass begins; those of the second batch start while it has a rest."""

    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            flow_runs = [await flow_run(b) for _ in range(STEP + 2)]
            task_runs = [make_run("k") for _ in range(STEP + 2)]
            await b.producer().submitted(*task_runs)
            b.clock.advance(16)
            inner = b.core.store.run

            async def start_the_rest(operation: Any) -> Any:
                """After the first step of each kind, of which the writer tells here instead of going on."""
                outcome = await inner(operation)
                if isinstance(operation, MarkTaskRunsLate):
                    worker = await b.worker("k", limit=STEP + 2)
                    await worker.wait_for("run", STEP + 2)
                elif isinstance(operation, MarkFlowRunsLate):
                    for run_id in flow_runs[STEP:]:
                        await set_state(b, run_id, StateType.PENDING)
                else:
                    return outcome
                return await inner(replace(operation, after=outcome.next, marked=outcome.marked))

            for kind in (MarkTaskRunsLate, MarkFlowRunsLate):
                monkeypatch.setattr(kind, "then", lambda *_: None)
            monkeypatch.setattr(b.core.store, "run", start_the_rest)
            assert await MarkLateRuns(b.core).run_once() == {"task_runs": STEP, "flow_runs": STEP}
            for run_id in flow_runs[STEP:]:
                assert await state(b, run_id) == (StateType.PENDING, "Pending")
                assert "Late" not in [one.name for one in await b.core.store.flow_runs.states(run_id)]
            for record in sorted(task_runs, key=lambda one: one.id)[STEP:]:
                assert await b.names(record.id) == ["Scheduled", "Pending"]

    run(main())
