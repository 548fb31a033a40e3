"""Runs that fail and are tried again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from runlane.protocol import messages as m

from .harness import ends_of, new_run, run, site, within

pytestmark = pytest.mark.process


def flaky(failures: int, *delays: float) -> m.NewRun:
    new = new_run("flaky", failures=failures)
    return msgspec.structs.replace(new, retries=len(delays), retry_delay=delays)


def test_two_failures_and_two_retries_make_three_executions(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            await place.worker(limit=1)
            new = flaky(2, 0.1, 0.2)
            async with place.client() as client:
                await client.submit([new])
                (end,) = await within(10, ends_of(client, [new.id]))
            assert bytes(end.result) == b'"attempt 3"'
            first, second, third = place.executions()
            assert [first.attempt, second.attempt, third.attempt] == [1, 2, 3]
            pauses = [second.started - (first.ended or 0), third.started - (second.ended or 0)]
            print(f"pauses of {pauses[0]:.3f} s and {pauses[1]:.3f} s")
            assert 0.1 <= pauses[0] < 0.1 + 0.5
            assert 0.2 <= pauses[1] < 0.2 + 0.5
            rows = await place.audit([new.id])
            assert (rows[new.id].attempt, rows[new.id].failures, rows[new.id].losses) == (3, 2, 0)
            assert rows[new.id].history == [
                "Scheduled",
                "Pending", "Running", "AwaitingRetry",
                "Pending", "Retrying", "AwaitingRetry",
                "Pending", "Retrying", "Completed",
            ]  # fmt: skip

    run(main())


def test_a_run_that_waits_for_its_retry_holds_no_slot(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            await place.worker(limit=1)
            failing, others = flaky(1, 1.5), [new_run("work", seconds=[0.1]) for _ in range(5)]
            async with place.client() as client:
                await client.submit([failing])
                await place.state(failing.id, "AwaitingRetry")
                await client.submit(others)
                await within(10, ends_of(client, [failing.id]))
            first, *between, last = place.executions()
            assert (first.run, last.run) == (failing.id, failing.id)
            assert [execution.run for execution in between] == [other.id for other in others]
            await place.audit([failing.id, *(other.id for other in others)])

    run(main())


def test_a_retry_that_waits_lives_through_a_kill_of_the_broker(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            broker = await place.broker()
            await place.worker()
            new = flaky(1, 2.0)
            async with place.client() as client:
                await client.submit([new])
                await place.state(new.id, "AwaitingRetry")
                await broker.kill()
                await place.broker()
                (end,) = await within(10, ends_of(client, [new.id]))
            assert bytes(end.result) == b'"attempt 2"'
            first, second = place.executions()
            assert second.started - (first.ended or 0) >= 2.0
            rows = await place.audit([new.id])
            assert (rows[new.id].attempt, rows[new.id].failures, rows[new.id].losses) == (2, 1, 0)

    run(main())


def test_a_run_that_fails_once_too_often_has_failed(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            await place.worker()
            new = flaky(9, 0.05)
            async with place.client() as client:
                await client.submit([new])
                (end,) = await within(10, ends_of(client, [new.id]))
            assert end.state.type == "FAILED"
            assert b"attempt 2 fails" in bytes(end.error)
            assert place.counts() == {new.id: 2}
            rows = await place.audit([new.id], {"FAILED": 1})
            assert (rows[new.id].attempt, rows[new.id].failures) == (2, 2)

    run(main())
