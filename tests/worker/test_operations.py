"""What operators do to workers, and brokers to them: rolling restarts, drains, outages, kills."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from tests.faults.harness import LONG, QUICK_TIMERS, Process, ends_of, new_run, run, site, until, within

from .support import gone, is_alive
from .test_starvation import worker

pytestmark = [pytest.mark.process, pytest.mark.timeout(200 if LONG else 60)]

RATE = 100
KEYS = ("quick", "thread")


def test_a_rolling_restart_under_load(tmp_path: Path) -> None:
    """Three workers are replaced one after the other while 100 runs come a second: nobody notices."""

    async def main() -> None:
        chance = random.Random(1)
        async with site(tmp_path) as place:
            await place.broker()
            workers = [await worker(place, "--limit", 20, name=f"worker-{n}") for n in range(3)]
            submitted: list[str] = []
            enough = asyncio.Event()
            async with place.client() as client:

                async def submit() -> None:
                    begun = time.monotonic()
                    while not enough.is_set():
                        new = new_run(chance.choice(KEYS), seconds=chance.uniform(0.0, 0.3))
                        submitted.append(new.id)
                        await client.submit([new])
                        await asyncio.sleep(max(0.0, begun + len(submitted) / RATE - time.monotonic()))

                submitting = asyncio.create_task(submit())
                await until(lambda: len(place.counts()) > RATE)
                drains: list[float] = []
                for n, old in enumerate(workers):
                    told = time.monotonic()
                    old.terminate()
                    assert await old.wait(10) == 0
                    drains.append(time.monotonic() - told)
                    await worker(place, "--limit", 20, name=f"worker-{n}-new")
                    if LONG:
                        await asyncio.sleep(10)
                enough.set()
                await submitting
                await within(20, ends_of(client, submitted))
            print(f"{len(submitted)} runs; drains: {', '.join(f'{seconds:.2f} s' for seconds in drains)}")
            assert max(drains) < 3
            assert place.counts() == dict.fromkeys(submitted, 1)
            rows = await place.audit(submitted)
            assert {(row.losses, row.failures) for row in rows.values()} == {(0, 0)}

    run(main())


def test_a_drain_ends_within_its_time_and_gives_back_what_does_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            first = await worker(place, "--limit", 6, "--drain-timeout", 1.5, name="first")
            ending = [new_run(key, seconds=0.8) for key in ("quick", "thread", "process")]
            lasting = [new_run(key, seconds=60.0) for key in ("quick", "process")]
            async with place.client() as client:
                await client.submit([*ending, *lasting])
                await place.started([new.id for new in (*ending, *lasting)])
                told = time.monotonic()
                first.terminate()
                await within(5, ends_of(client, [new.id for new in ending]))
                assert await first.wait(10) == 0
                took = time.monotonic() - told
            print(f"drained in {took:.2f} s of 1.5")
            assert 1.4 < took < 4.5
            query = "SELECT id, state_name, losses, failures, attempt FROM task_run"
            rows = {run_id: row for run_id, *row in place.read(query)}
            assert {tuple(rows[new.id]) for new in ending} == {("Completed", 0, 0, 1)}
            assert {tuple(rows[new.id]) for new in lasting} == {("Requeued", 0, 0, 1)}

    run(main())


def test_results_of_an_outage_are_all_recorded(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS) as place:
            broker = await place.broker()
            started = await worker(place, "--limit", 8)
            keys = ("quick", "quick", "quick", "thread", "thread", "thread", "process", "process")
            runs = [new_run(key, seconds=1.2 + n / 10) for n, key in enumerate(keys)]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                await place.started(ids)
                await broker.kill()
                down = time.monotonic()
                await until(lambda: all(execution.ended for execution in place.executions()))
                await asyncio.sleep(max(0.0, down + 3 - time.monotonic()))
                await place.broker()
                await within(10, ends_of(client, ids))
            assert f"{len(ids)} runs resumed, 0 lost" in started.log
            assert place.counts() == dict.fromkeys(ids, 1)
            rows = await place.audit(ids)
            assert {(row.attempt, row.losses, row.failures) for row in rows.values()} == {(1, 0, 0)}

    run(main())


def test_a_worker_that_is_told_to_stop_during_an_outage_waits_for_the_verdicts(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS) as place:
            broker = await place.broker()
            started = await worker(place, "--limit", 4)
            runs = [new_run("quick", seconds=0.8) for _ in range(4)]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                await place.started(ids)
                await broker.kill()
                started.terminate()
                await until(lambda: all(execution.ended for execution in place.executions()))
                await asyncio.sleep(1)
                assert started.is_running
                await place.broker()
                await within(10, ends_of(client, ids))
                assert await started.wait(5) == 0
            assert place.counts() == dict.fromkeys(ids, 1)
            rows = await place.audit(ids)
            assert {(row.attempt, row.losses) for row in rows.values()} == {(1, 0)}

    run(main())


async def children_of(process: Process) -> set[int]:
    """Return the processes that a worker has started."""
    path = Path(f"/proc/{process.pid}/task")
    text = " ".join((thread / "children").read_text() for thread in path.iterdir())
    return {int(pid) for pid in text.split()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_killed_worker_leaves_no_process_behind(tmp_path: Path) -> None:
    """Neither an idle one, nor one that holds the interpreter's lock in C, nor one that executes Python."""

    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            started = await worker(place, "--limit", 3)
            runs = [
                new_run("process", seconds=0.4),
                new_run("lock", seconds=20.0),
                new_run("process", seconds=60.0),
            ]
            async with place.client() as client:
                await client.submit(runs)
                await place.started([new.id for new in runs])
                await within(20, ends_of(client, [runs[0].id]))
                children = await children_of(started)
                assert len(children) == 3
                assert all(is_alive(pid) for pid in children)
                await started.kill()
                await gone(children, seconds=2)

    run(main())


@pytest.mark.parametrize("signals", [1, 2])
def test_signals_to_the_whole_group_leave_processes_to_the_worker(tmp_path: Path, signals: int) -> None:
    """As systemd and terminals send them: a drain finishes what runs in processes, too."""

    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            started = await worker(place, "--limit", 2)
            new = new_run("process", seconds=1.0 if signals == 1 else 60.0)
            async with place.client() as client:
                await client.submit([new])
                await place.started([new.id])
                children = await children_of(started)
                for _ in range(signals):
                    for pid in children:
                        os.kill(pid, signal.SIGTERM)
                        os.kill(pid, signal.SIGINT)
                    started.terminate()
                    await started.line("draining")
                since = time.monotonic()
                assert await started.wait(10) == (0 if signals == 1 else 130)
                took = time.monotonic() - since
            await gone(children)
            (row,) = place.read("SELECT state_name, failures, losses FROM task_run")
            assert row == (("Completed" if signals == 1 else "Requeued"), 0, 0)
            print(f"ended {took:.2f} s after the last signal")
            assert re.search("Traceback", started.log) is None, started.log

    run(main())
