"""Deadlines: silence, deafness, grace; and what a pause of the broker itself does to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from runlane.protocol.closing import CloseCode
from runlane.protocol.states import StateType
from runlane_broker.core.supervision import Swept

from ..support import new_database, run
from .harness import Broker, Worker, broker

S = StateType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


async def holding(b: Broker, limit: int = 1) -> tuple[Worker, str]:
    worker = await b.worker(limit=limit)
    await b.quiet()
    run_id = await b.producer().queued()
    await worker.wait_for("run")
    return worker, run_id


def test_a_worker_that_holds_runs_and_is_silent_is_closed(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            worker.started(run_id)
            b.later(5.9)
            assert worker.of("close") == []
            assert b.later(0.2).silent == 1
            assert [event[1] for event in worker.of("close")] == [CloseCode.UNRESPONSIVE]
            worker.disconnect()
            assert (await b.run(run_id)).state.type is not S.SCHEDULED, "its session has the grace"
            b.later(5.1)
            await b.quiet()
            assert (await b.run(run_id)).losses == 1

    run(main())


def test_an_idle_worker_may_be_silent_for_longer(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker()
            b.later(44.9)
            assert worker.of("close") == []
            assert b.later(0.2).silent == 1
            assert [event[1] for event in worker.of("close")] == [CloseCode.UNRESPONSIVE]

    run(main())


def test_a_worker_that_beats_is_never_silent(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            worker.started(run_id)
            b.later(120, worker)
            assert worker.of("close") == []

    run(main())


def test_an_idle_worker_that_is_given_a_run_owes_its_first_beat_from_then_on(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker()
            await b.quiet()
            b.later(40)
            run_id = await b.producer().queued()
            await worker.wait_for("run")
            b.later(5.5)
            assert worker.of("close") == []
            worker.started(run_id)
            assert b.later(0.5).silent == 1

    run(main())


def test_a_worker_that_does_not_start_a_run_is_deaf_and_the_run_goes_to_another(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b, limit=2)
            other_run = await b.producer().queued()
            await worker.wait_for("run", 2)
            worker.started(other_run)
            b.later(9.9, worker)
            assert worker.of("close") == []
            assert b.later(0.2, worker).deaf == 1
            assert [event[1] for event in worker.of("close")] == [CloseCode.UNRESPONSIVE]
            other = await b.worker()
            await other.wait_for("run")
            assert other.pushed == [(run_id, 2)]
            record = await b.run(run_id)
            assert (record.losses, record.failures) == (0, 0)
            worker.disconnect()
            second = await Worker(b.core, limit=1).connected(worker, [(other_run, 1)])
            assert second.answer is not None
            assert second.answer.resumed == (other_run,), "what it had started is still its own"

    run(main())


def test_what_a_deaf_worker_held_is_not_given_to_itself(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            waiting = await b.producer().queued()
            b.later(10.1, worker)
            await b.quiet()
            assert worker.pushed == [(run_id, 1)]
            assert await b.state(run_id) == (S.SCHEDULED, "Requeued")
            assert await b.state(waiting) == (S.SCHEDULED, "Scheduled")

    run(main())


@pytest.mark.parametrize("seconds", [1.6, 60, 3600])
def test_after_a_pause_of_the_broker_everybody_has_the_time_that_was_left(path: Path, seconds: float) -> None:
    async def main() -> None:
        async with broker(path) as b:
            busy, run_id = await holding(b)
            busy.started(run_id)
            away = await b.worker("other")
            idle = await b.worker("other")
            away.disconnect()
            b.later(2)
            b.clock.advance(seconds)
            assert b.core.supervision.sweep() == Swept(paused=True)
            assert b.later(0.5) == Swept(), "the pass after it finds nobody late"
            assert busy.of("close") == []
            swept = [b.later(0.5, idle) for _ in range(8)]
            assert [s.lost for s in swept].count(1) == 1, "the grace went on where it was"
            assert [s.silent for s in swept if s.silent], "and so did the silence"
            assert idle.of("close") == []
            await b.quiet()
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_a_start_timeout_is_moved_by_a_pause_too(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, _ = await holding(b)
            b.later(8.5, worker)
            b.clock.advance(30)
            assert b.core.supervision.sweep().paused
            assert b.later(0.5, worker).deaf == 0
            assert b.later(1, worker).deaf == 1

    run(main())


def test_a_pass_that_is_a_little_late_is_no_pause(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            worker.started(run_id)
            for _ in range(4):
                b.clock.advance(1.4)
                assert not b.core.supervision.sweep().paused
            b.clock.advance(1.4)
            assert b.core.supervision.sweep().silent == 1

    run(main())


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_setting_the_time_of_day_moves_no_deadline(path: Path, seconds: float) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            worker.started(run_id)
            away = await b.worker("other")
            away.disconnect()
            b.clock.set_wall(seconds)
            assert b.later(0.5, worker) == Swept()
            assert b.later(4, worker) == Swept()
            assert b.later(0.6, worker).lost == 1
            worker.finished(run_id)
            await worker.wait_for("recorded")
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_a_session_without_connection_is_lost_once(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, _ = await holding(b)
            worker.disconnect()
            assert b.later(5).lost == 1
            assert b.later(5).lost == 0
            assert len(b.core.registry) == 0
            worker.disconnect()
            b.core.sessions.lose(worker.own)
            assert b.later(5).lost == 0

    run(main())
