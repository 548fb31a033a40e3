"""Runs that are cancelled while things break: nothing of that starts, and nothing is CANCELLED that runs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from runlane.config import ClientSection
from runlane.protocol.states import StateType
from runlane.runs import TaskRuns

from .harness import QUICK_TIMERS, ends_of, new_run, run, site, within

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_what_was_cancelled_while_it_waited_never_starts_also_after_a_restart(tmp_path: Path, end: str) -> None:
    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS) as place:
            broker = await place.broker()
            runs = [new_run("work", seconds=[0.0]) for _ in range(300)]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                answers = await client.cancel(ids[::2])
                if end == "kill":
                    await broker.kill()
                else:
                    broker.terminate()
                    await broker.wait()
                await place.broker()
                await place.worker()
                ends = await within(30, ends_of(client, ids))
            assert {answer.state.type for answer in answers if answer.state} == {StateType.CANCELLED}
            assert [one.state.type for one in ends] == [StateType.CANCELLED, StateType.COMPLETED] * 150
            assert place.counts() == dict.fromkeys(ids[1::2], 1)
            await place.audit(ids, {"CANCELLED": 150, "COMPLETED": 150})

    run(main())


def test_a_worker_that_is_killed_while_its_run_is_being_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS) as place:
            await place.broker()
            worker = await place.worker(name="first")
            new = new_run("work", seconds=[60.0])
            async with place.client() as client:
                await client.submit([new])
                await place.started([new.id])
                worker.pause()  # it hears of nothing
                (answer,) = await client.cancel([new.id])
                assert answer.state is not None
                assert answer.state.type is StateType.CANCELLING
                await worker.kill()
                await place.worker(name="second")
                (ended,) = await within(20, ends_of(client, [new.id]))
                assert ended.state.type is StateType.CANCELLED
            assert place.counts() == {new.id: 1}
            row = (await place.audit([new.id], {"CANCELLED": 1}))[new.id]
            assert row.history[-2:] == ["Cancelling", "Cancelled"]

    run(main())


def test_a_broker_that_restarts_tells_the_worker_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, **{**QUICK_TIMERS, "resume": 10.0}) as place:
            broker = await place.broker()
            worker = await place.worker()
            new = new_run("work", seconds=[60.0])
            async with place.client() as client:
                await client.submit([new])
                await place.started([new.id])
                await place.state(new.id, "Running")
                worker.pause()
                await client.cancel([new.id])
                await broker.kill()
                await place.broker()
                worker.go_on()
                (ended,) = await within(20, ends_of(client, [new.id]))
                assert ended.state.type is StateType.CANCELLED
            rows = await place.audit([new.id], {"CANCELLED": 1})
            assert rows[new.id].history == ["Scheduled", "Pending", "Running", "Cancelling", "Cancelled"]
            assert "1 runs resumed" in worker.log

    run(main())


def test_ten_thousand_are_cancelled_while_others_are_executed(tmp_path: Path) -> None:
    """By one command; of those that are executed meanwhile none waits for all of it."""

    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            await place.worker()
            async with place.client() as client:
                waiting = [new_run("nobody", n=n) for n in range(10_000)]
                await client.submit(waiting)
                runs = TaskRuns(ClientSection(url=place.url))
                cancelling = asyncio.ensure_future(asyncio.to_thread(runs.cancel_all, keys=["nobody"]))
                delays: list[float] = []
                while not cancelling.done():
                    new = new_run("work", seconds=[0.0])
                    since = time.monotonic()
                    await client.submit([new])
                    await ends_of(client, [new.id])
                    delays.append(time.monotonic() - since)
                counts = await cancelling
            print(f"{len(delays)} runs meanwhile, the slowest took {max(delays) * 1000:.0f} ms")
            assert counts == {"cancelled": 10_000, "cancelling": 0}
            assert len(delays) > 1, "dispatch went on"
            assert place.read("SELECT count(*) FROM task_run WHERE state_type = 'SCHEDULED'") == [(0,)]

    run(main())
