"""Tasks that let nothing else run: the connection goes on, and nothing is executed twice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.harness import LONG, QUICK_TIMERS, Process, Site, ends_of, new_run, run, site, within

pytestmark = [pytest.mark.process, pytest.mark.timeout(200 if LONG else 60)]

TASKS = Path(__file__).with_name("tasks.py")
#: Seconds that a task lets nothing else run: more than two times the silence that the broker puts up with.
SECONDS = 60.0 if LONG else 3.5
TIMERS = {} if LONG else {**QUICK_TIMERS, "start": 2.0}


async def worker(place: Site, *options: object, name: str = "worker") -> Process:
    """Start a worker of this folder's tasks; returns when it is subscribed."""
    started = await place.launch(
        name, "worker", TASKS, "--url", place.url, *options, EXECUTIONS=str(place.folder / "executions")
    )
    await started.line("subscribed as session")
    return started


def test_a_busy_thread_a_blocked_loop_and_a_held_lock_all_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, **TIMERS) as place:
            broker = await place.broker()
            started = await worker(place, "--limit", 3)
            runs = [new_run(key, seconds=SECONDS) for key in ("busy", "block", "lock")]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                ends = await within(4 * SECONDS + 20, ends_of(client, ids))
            print("the lock was held for", bytes(ends[2].result).decode(), "s")
            assert float(ends[2].result) >= SECONDS
            assert place.counts() == dict.fromkeys(ids, 1)
            assert started.log.count("connected to the broker") == 1
            assert "closing" not in broker.log
            rows = await place.audit(ids)
            assert {(row.attempt, row.losses, row.failures) for row in rows.values()} == {(1, 0, 0)}

    run(main())


def test_runs_that_a_blocked_loop_cannot_begin_are_given_back_and_threads_go_on(tmp_path: Path) -> None:
    """They are offered again, here or elsewhere, and none of it costs the session or a retry."""

    async def main() -> None:
        async with site(tmp_path, **{**QUICK_TIMERS, "start": 2.0}) as place:
            broker = await place.broker()
            blocked = await worker(place, "--limit", 6, name="blocked")
            block = new_run("block", seconds=4.0)
            stuck = [new_run("quick", seconds=0.0) for _ in range(3)]
            threads = [new_run("thread", seconds=0.1) for _ in range(2)]
            async with place.client() as client:
                await client.submit([block])
                await place.started([block.id])
                since = time.monotonic()
                await client.submit([*threads, *stuck])
                await within(2, ends_of(client, [new.id for new in threads]))
                await blocked.line("some task blocks the others")
                second = await worker(place, name="second")
                await within(2, ends_of(client, [new.id for new in stuck]))
                assert time.monotonic() - since < 4
                await within(10, ends_of(client, [block.id]))
                second.terminate()
                assert await second.wait() == 0
                last = new_run("quick", seconds=0.0)
                await client.submit([last])
                await within(5, ends_of(client, [last.id]))  # the first one takes runs again
            ids = [new.id for new in (block, *stuck, *threads, last)]
            assert place.counts() == dict.fromkeys(ids, 1)
            assert {e.pid for e in place.executions() if e.run in {new.id for new in stuck}} == {second.pid}
            assert "closing" not in broker.log
            rows = await place.audit(ids)
            assert {(row.losses, row.failures) for row in rows.values()} == {(0, 0)}
            assert {rows[new.id].attempt for new in stuck} == {2}

    run(main())


def test_a_call_that_keeps_the_lock_for_too_long_costs_the_lease_and_counts_for_nothing(tmp_path: Path) -> None:
    """Nobody can beat meanwhile. The run goes to another worker, which completes it; the first one says why."""

    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS) as place:
            broker = await place.broker()
            frozen = await worker(place, name="frozen")
            new = new_run("keep", seconds=[6.0, 0.0])
            async with place.client() as client:
                await client.submit([new])
                await place.started([new.id])
                second = await worker(place, name="second")
                (end,) = await within(20, ends_of(client, [new.id]))
                assert bytes(end.result) == b"2"
                await frozen.line(r"stood still for \d+\.\d s.* pool=\"process\" \(keep\)")
                await frozen.line("0 runs resumed, 1 lost")
                second.terminate()
                assert await second.wait() == 0
                last = new_run("quick", seconds=0.0)
                await client.submit([last])
                await within(10, ends_of(client, [last.id]))  # the first one is of use again
            assert "closing" in broker.log
            assert place.counts() == {new.id: 2, last.id: 1}
            row = (await place.audit([new.id, last.id]))[new.id]
            assert (row.attempt, row.losses, row.failures) == (2, 1, 0)
            # (That it had started, the first one could not say any more.)
            assert [name for name in row.history if name != "Running"] == [
                "Scheduled", "Pending", "Requeued", "Pending", "Completed",
            ]  # fmt: skip

    run(main())


def test_a_blocked_loop_does_not_keep_a_worker_from_ending(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            blocked = await worker(place, "--drain-timeout", 0.5)
            block = new_run("block", seconds=60.0)
            async with place.client() as client:
                await client.submit([block])
                await place.started([block.id])
                since = time.monotonic()
                blocked.terminate()
                await place.state(block.id, "Requeued")
                given_back = time.monotonic() - since
                assert await blocked.wait(15) == 0
            print(f"given back after {given_back:.2f} s, ended after {time.monotonic() - since:.2f} s")
            assert "leaving without it" in blocked.log
            assert given_back < 5

    run(main())


def test_a_busy_thread_costs_others_little(tmp_path: Path) -> None:
    """Runs in the loop and in other threads go on, at the pace that the interpreter's lock allows."""

    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            await worker(place, "--limit", 4)
            busy = [new_run("busy", seconds=3.0) for _ in range(2)]
            others = [new_run(key, seconds=0.01) for key in ("quick", "thread") for _ in range(10)]
            async with place.client() as client:
                await client.submit(busy)
                await place.started([new.id for new in busy])
                await client.submit(others)
                ended = asyncio.create_task(ends_of(client, [new.id for new in others]))
                await within(2.5, ended)
                await within(10, ends_of(client, [new.id for new in busy]))

    run(main())
