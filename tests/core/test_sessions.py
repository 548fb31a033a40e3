"""Sessions: resumed, lost, quit; what becomes of the runs they hold."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from runlane.protocol.closing import CloseCode
from runlane.protocol.messages import HeldRun
from runlane.protocol.states import StateType
from runlane_broker.settings import Settings
from runlane_broker.storage.operations.sessions import ResumeSession

from ..support import Gate, make_run, new_database, new_id, run
from .harness import Broker, Worker, broker

S = StateType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


async def holding(b: Broker, count: int, limit: int | None = None) -> tuple[Worker, list[str]]:
    """A worker, and the runs it was pushed."""
    worker = await b.worker(limit=count if limit is None else limit)
    await b.quiet()
    producer = b.producer()
    ids = [await producer.queued() for _ in range(count)]
    await worker.wait_for("run", count)
    return worker, ids


# --- Resuming -----------------------------------------------------------------------------------------------


def test_a_resumed_session_keeps_its_runs_and_both_sides_agree_on_the_rest(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            first, (started, pushed, unheard) = await holding(b, 3)
            first.started(started)
            await b.quiet()
            first.disconnect()
            unknown = new_id()
            second = Worker(b.core, limit=3)
            await second.connected(first, [(started, 1), (pushed, 1), (unknown, 1)])
            assert second.answer is not None
            assert second.answer.session == first.own.id
            assert set(second.answer.resumed) == {started, pushed}
            assert second.answer.lost == (HeldRun(id=unknown, attempt=1),)
            await second.wait_for("run")
            await b.quiet()
            assert second.pushed == [(unheard, 2)], "what is resumed is not redelivered"
            assert second.own.epoch == 2
            second.finished(started)
            second.finished(pushed)
            second.finished(unheard, 2)
            await second.wait_for("recorded", 3)
            assert second.of("lease_lost") == []
            for run_id in (started, pushed, unheard):
                assert (await b.run(run_id)).losses == 0
            assert b.core.dispatcher.free_slots(second.own.id) == 3

    run(main())


def test_a_resumed_session_counts_what_it_holds_against_its_limit(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            first, (held,) = await holding(b, 1)
            first.disconnect()
            waiting = await b.producer().queued()
            second = await Worker(b.core, limit=1).connected(first, [(held, 1)])
            await b.quiet()
            assert second.pushed == []
            second.finished(held)
            await b.quiet()
            assert second.pushed == [(waiting, 1)]

    run(main())


def test_a_report_whose_verdict_was_lost_with_the_connection_counts_once(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            first, (run_id,) = await holding(b, 1)
            producer = b.producer()
            await producer.watch(run_id)
            gate = b.executor.after = Gate()
            first.finished(run_id)
            await gate.reached()
            first.disconnect()
            gate.open()
            await producer.wait_for("finished")
            assert first.of("recorded") == []
            second = await Worker(b.core).connected(first, [(run_id, 1)])
            assert second.answer is not None
            assert (second.answer.resumed, second.answer.lost) == ((run_id,), ())
            second.finished(run_id)
            await second.wait_for("recorded")
            await b.quiet()
            assert await b.names(run_id) == ["Scheduled", "Pending", "Completed"]
            assert len(producer.of("finished")) == 1

    run(main())


def test_a_connection_that_seems_alive_is_replaced_by_the_one_that_resumes(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            first, (run_id,) = await holding(b, 1)
            second = await Worker(b.core, limit=2).connected(first, [(run_id, 1)])
            assert [event[1] for event in first.of("close")] == [CloseCode.SUPERSEDED]
            first.disconnect()
            waiting = await b.producer().queued()
            await second.wait_for("run")
            assert second.pushed == [(waiting, 1)]
            assert first.pushed == [(run_id, 1)]
            b.later(6, second)
            await b.quiet()
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_a_session_can_be_resumed_again_and_again(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, (run_id,) = await holding(b, 1)
            for epoch in range(2, 6):
                worker.disconnect()
                b.later(4)
                worker = await Worker(b.core).connected(worker, [(run_id, 1)])
                assert worker.own.epoch == epoch
            worker.finished(run_id)
            await worker.wait_for("recorded")
            assert (await b.run(run_id)).attempt == 1

    run(main())


def test_a_resume_whose_answer_was_lost_with_its_connection_can_be_repeated(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            first, (run_id,) = await holding(b, 1)
            first.disconnect()
            gate = b.executor.after = Gate()
            unheard = Worker(b.core)
            unheard.subscribe(first, [(run_id, 1)])
            await gate.reached()
            unheard.disconnect()
            gate.open()
            third = await Worker(b.core).connected(first, [(run_id, 1)])
            assert third.answer is not None
            assert (third.answer.session, third.answer.resumed) == (first.own.id, (run_id,))
            assert third.own.epoch == 3
            third.finished(run_id)
            await third.wait_for("recorded")
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_a_session_that_cannot_be_resumed_is_a_new_one_and_what_it_held_is_lost(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            first, (run_id,) = await holding(b, 1)
            first.disconnect()
            b.later(5.5)
            await b.quiet()
            second = await Worker(b.core).connected(first, [(run_id, 1)])
            assert second.answer is not None
            assert second.answer.session != first.own.id
            assert second.answer.lost == (HeldRun(id=run_id, attempt=1),)
            await second.wait_for("run")
            assert second.pushed == [(run_id, 2)]

    run(main())


def test_another_token_does_not_resume_and_does_not_disturb(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            first, (run_id,) = await holding(b, 1)
            thief = Worker(b.core)
            assert first.answer is not None
            thief.answer = type(first.answer)(session=first.own.id, resume_token="guessed")
            other = await Worker(b.core).connected(thief, [(run_id, 1)])
            assert other.own.id != first.own.id
            assert first.of("close") == []
            first.finished(run_id)
            await first.wait_for("recorded")

    run(main())


def test_a_session_resumed_elsewhere_is_served_no_more_and_no_run_is_lost(path: Path) -> None:
    async def main() -> None:
        async with broker(path, tampered=True) as b:
            worker = await b.worker(limit=2)
            await b.quiet()
            assert worker.answer is not None
            token = worker.answer.resume_token
            await b.core.store.run(ResumeSession(worker.own.id, "elsewhere", token, ()))
            run_id = await b.producer().queued()
            await worker.wait_for("close")
            await b.quiet()
            assert worker.of("close")[0][1] is CloseCode.SUPERSEDED
            assert worker.pushed == []
            assert (await b.run(run_id)).attempt == 0
            other = await b.worker()
            await other.wait_for("run")
            assert other.pushed == [(run_id, 1)]

    run(main())


# --- Quitting, losing ---------------------------------------------------------------------------------------


def test_a_worker_that_quits_gives_its_runs_back_at_once_and_nothing_counts(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, ids = await holding(b, 2)
            worker.started(ids[0])
            other = await b.worker(limit=2)
            worker.quit()
            await other.wait_for("run", 2)
            assert sorted(other.pushed) == sorted((run_id, 2) for run_id in ids)
            worker.disconnect()
            for run_id in ids:
                assert (await b.run(run_id)).losses == 0
            assert len(b.core.registry) == 1
            assert [s.id for s in (await b.core.store.backlog()).sessions] == [other.own.id]

    run(main())


def test_a_worker_that_reports_and_quits_has_reported(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, (run_id,) = await holding(b, 1)
            worker.finished(run_id)
            worker.quit()
            await b.quiet()
            assert await b.state(run_id) == (S.COMPLETED, "Completed")

    run(main())


def test_a_session_that_does_not_come_back_loses_its_runs_to_others(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, (run_id,) = await holding(b, 1)
            worker.disconnect()
            other = await b.worker()
            assert b.later(4.9, other).lost == 0
            await b.quiet()
            assert other.pushed == []
            assert b.later(0.2, other).lost == 1
            await other.wait_for("run")
            assert other.pushed == [(run_id, 2)]
            assert (await b.run(run_id)).losses == 1
            assert await b.names(run_id) == ["Scheduled", "Pending", "Requeued", "Pending"]

    run(main())


def test_the_report_of_a_lost_session_is_refused_and_the_new_holders_counts(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, (run_id,) = await holding(b, 1)
            other = await b.worker()
            b.core.sessions.lose(worker.own)
            await other.wait_for("run")
            worker.own.port = worker  # as if its frames still came
            worker.finished(run_id)
            await worker.wait_for("lease_lost")
            assert worker.of("recorded") == []
            other.finished(run_id, 2)
            await other.wait_for("recorded")
            assert (await b.run(run_id)).state.attempt == 2

    run(main())


def test_a_run_goes_to_the_head_of_its_key_when_its_worker_is_lost(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, (lost,) = await holding(b, 1)
            producer = b.producer()
            waiting = [await producer.queued() for _ in range(3)]
            urgent = await producer.queued(priority=1)
            worker.quit()
            await b.quiet()
            other = await b.worker()
            expected = [urgent, lost, *waiting]
            for i, run_id in enumerate(expected):
                await other.wait_for("run", i + 1)
                other.finished(run_id, other.pushed[-1][1])
            await b.quiet()
            assert other.pushed_ids == expected

    run(main())


@pytest.mark.parametrize(
    ("runs", "ends", "told"),
    [
        (0, "quits", ("INFO", "quit; runs it still held: 0 queued again, 0 ended")),
        (0, "breaks", ("INFO", "has left without a word; runs it still held: 0 queued again, 0 ended")),
        (1, "breaks", ("WARNING", "was lost; runs it still held: 1 queued again, 0 ended")),
    ],
)
def test_only_a_worker_that_held_something_is_said_to_be_lost(
    path: Path, caplog: pytest.LogCaptureFixture, runs: int, ends: str, told: tuple[str, str]
) -> None:
    caplog.set_level(logging.INFO, "runlane.sessions")

    async def main() -> None:
        async with broker(path) as b:
            worker = (await holding(b, runs))[0] if runs else await b.worker()
            if ends == "quits":
                worker.quit()
            else:
                worker.disconnect()
                b.core.sessions.lose(worker.own)
            await b.quiet()

    run(main())
    last = caplog.records[-1]
    assert (last.levelname, last.getMessage().split(" ", 2)[2]) == told


def test_a_run_that_kills_its_workers_is_parked_and_its_watchers_are_told(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=replace(Settings(), max_losses=3)) as b:
            producer = b.producer()
            run_id = await producer.queued()
            await producer.watch(run_id)
            for attempt in (1, 2, 3):
                worker = await b.worker()
                await worker.wait_for("run")
                assert worker.pushed == [(run_id, attempt)]
                worker.disconnect()
                b.core.sessions.lose(worker.own)
                await b.quiet()
            assert producer.of("finished") == [("finished", run_id, S.CRASHED, None)]
            assert await b.state(run_id) == (S.CRASHED, "Parked")
            last = await b.worker()
            await b.quiet()
            assert last.pushed == []

    run(main())


# --- Releasing ----------------------------------------------------------------------------------------------


def test_a_released_run_goes_to_a_worker_at_once_and_the_slot_is_free(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, (run_id,) = await holding(b, 1)
            b.core.sessions.set_limit(worker.own, 0)
            other = await b.worker()
            worker.released(run_id)
            await other.wait_for("run")
            assert other.pushed == [(run_id, 2)]
            await worker.wait_for("settled")
            assert not worker.own.held
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_a_run_released_for_later_comes_back_when_it_is_due(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, (run_id,) = await holding(b, 1)
            worker.released(run_id, delay=0.02)
            await b.quiet()
            assert worker.pushed == [(run_id, 1)]
            b.clock.advance(0.02)
            await worker.wait_for("run", 2)
            assert worker.pushed == [(run_id, 1), (run_id, 2)]

    run(main())


def test_a_release_or_report_of_another_attempt_touches_nothing(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, (run_id,) = await holding(b, 1)
            await b.producer().queued()
            worker.released(run_id, attempt=2)
            worker.finished(run_id, attempt=7)
            await worker.wait_for("lease_lost")
            await b.quiet()
            assert list(worker.own.held) == [run_id]
            assert worker.pushed == [(run_id, 1)]
            assert await b.state(run_id) == (S.PENDING, "Pending")

    run(main())


def test_a_start_of_a_lease_that_is_over_is_answered_and_frees_the_slot(path: Path) -> None:
    async def main() -> None:
        async with broker(path, tampered=True) as b:
            worker, (run_id,) = await holding(b, 1)
            other = await b.worker()
            # Somebody else ends the lease in the database, and this broker does not know.
            from runlane_broker.storage.operations.leasing import Release, ReleaseRuns

            await b.core.store.run(ReleaseRuns(worker.own.id, (Release(run_id, 1, "by hand"),)))
            worker.started(run_id)
            await worker.wait_for("lease_lost")
            assert not worker.own.held
            assert b.core.dispatcher.free_slots(worker.own.id) == 1
            assert other.pushed == []

    run(main())


# --- Retries ------------------------------------------------------------------------------------------------


def test_a_retry_waits_in_the_database_without_a_slot_and_comes_when_it_is_due(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(), b.producer()
            await b.quiet()
            run_id = await producer.queued(retries=1, retry_delay=(0.02,))
            other = await producer.queued()
            await producer.watch(run_id)
            await worker.wait_for("run")
            worker.finished(run_id, type_="FAILED")
            await worker.wait_for("recorded")
            await worker.wait_for("run", 2)
            await b.quiet()
            assert worker.pushed == [(run_id, 1), (other, 1)], "its slot is free for others"
            assert b.core.dispatcher.place_of(run_id) is None
            assert await b.state(run_id) == (S.SCHEDULED, "AwaitingRetry")
            assert producer.of("finished") == []
            worker.finished(other)
            await b.quiet()
            assert len(worker.pushed) == 2, "it is not due yet"
            b.clock.advance(0.02)
            await worker.wait_for("run", 3)
            assert worker.pushed[2] == (run_id, 2)
            worker.started(run_id, 2)
            worker.finished(run_id, 2)
            await producer.wait_for("finished")
            names = ["Scheduled", "Pending", "AwaitingRetry", "Pending", "Retrying", "Completed"]
            assert await b.names(run_id) == names

    run(main())


def test_a_retry_without_delay_comes_at_once(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(), b.producer()
            run_id = await producer.queued(retries=2)
            for attempt in (1, 2, 3):
                await worker.wait_for("run", attempt)
                worker.finished(run_id, attempt, "FAILED")
            await b.quiet()
            assert worker.pushed == [(run_id, 1), (run_id, 2), (run_id, 3)]
            assert await b.state(run_id) == (S.FAILED, "Failed")

    run(main())


def test_a_retry_goes_before_what_came_while_it_was_executed(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(), b.producer()
            await b.quiet()
            failing, taken, waiting = [await producer.queued(retries=1) for _ in range(3)]
            await worker.wait_for("run")
            b.clock.advance(1.0)
            worker.finished(failing, type_="FAILED")  # the slot has another run in the same commit
            await worker.wait_for("run", 2)
            worker.finished(taken)
            await worker.wait_for("run", 3)
            assert worker.pushed == [(failing, 1), (taken, 1), (failing, 2)]
            worker.finished(failing, 2)
            await worker.wait_for("run", 4)
            assert worker.pushed[3] == (waiting, 1)

    run(main())


@pytest.mark.parametrize("noted", ["submitted while served", "found by a refill"])
def test_a_run_for_later_is_pushed_when_it_is_due(path: Path, noted: str) -> None:
    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            due = b.clock.now() + 20_000
            early = [await producer.queued(due=due)] if noted == "found by a refill" else []
            worker = await b.worker(limit=2)
            await b.quiet()
            ids = early or [await producer.queued(due=due)]
            await b.quiet()
            assert worker.pushed == []
            b.clock.advance(0.02)
            await worker.wait_for("run")
            assert worker.pushed_ids == ids

    run(main())


def test_runs_for_later_follow_the_time_of_day_when_it_is_set(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runlane_broker.core.due._LONGEST_SLEEP", 0.02)

    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(limit=5), b.producer()
            await b.quiet()
            run_id = await producer.queued(due=b.clock.now() + 3_600_000_000)
            await b.quiet()
            assert worker.pushed == []
            b.clock.set_wall(3600)
            await worker.wait_for("run")
            assert worker.pushed == [(run_id, 1)]

    run(main())


def test_a_broker_that_stops_leaves_no_timer_behind(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            await b.worker()
            await b.quiet()
            later = make_run(due=b.clock.now() + 60_000_000)
            b.core.drain()
            await b.producer().submitted(later)
            await b.quiet()
            assert b.core.dispatching._due._timer is None

    run(main())
