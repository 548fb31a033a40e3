"""The path of a run through the core: submit, lease, push, report, watch."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from runlane.protocol.messages import MAX_RUNS_PER_SUBMIT
from runlane.protocol.states import StateType
from runlane_broker.core import submit
from runlane_broker.errors import Overloaded, StoreUnavailable
from runlane_broker.settings import Settings
from runlane_broker.storage.operations.creating import CreateRuns
from runlane_broker.storage.operations.leasing import LeaseRuns
from runlane_broker.storage.operations.sessions import OpenSession
from runlane_broker.storage.records import Creation

from ..support import SECOND, START, Gate, make_run, new_database, new_id, run
from .harness import Worker, broker

S = StateType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


def test_a_run_goes_its_whole_way(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker()
            await b.quiet()
            producer = b.producer()
            new = make_run(parameters=b'{ "n" : 1.0 }', retries=3)
            (created,) = await producer.submitted(new)
            assert (created.id, created.how) == (new.id, Creation.LEASED)
            assert await producer.watch(new.id) == []
            await worker.wait_for("run")
            assert worker.of("run") == [("run", new.id, 1, b'{ "n" : 1.0 }')]
            worker.started(new.id)
            worker.progress(new.id, 0.5)
            worker.finished(new.id, result=msgspec.Raw(b" 4_2".replace(b"_", b"")))
            await producer.wait_for("finished")
            await worker.wait_for("recorded")
            assert worker.of("recorded", "lease_lost") == [("recorded", new.id, 1, False)]
            assert producer.events[1:] == [
                ("progress", new.id, 0.5),
                ("finished", new.id, S.COMPLETED, b" 42"),
            ]
            assert await b.names(new.id) == ["Scheduled", "Pending", "Running", "Completed"]
            assert len(worker.of("settled")) == 2
            assert b.core.dispatcher.free_slots(worker.own.id) == 1
            assert not worker.own.held
            assert b.executor.executed(LeaseRuns) == [], "insert and lease were one commit"

    run(main())


def test_a_run_waits_in_the_database_for_a_worker(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            run_id = await b.producer().queued()
            await b.quiet()
            assert await b.state(run_id) == (S.SCHEDULED, "Scheduled")
            worker = await b.worker()
            await worker.wait_for("run")
            assert worker.pushed == [(run_id, 1)]

    run(main())


def test_a_worker_is_never_sent_more_than_its_free_slots(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=2)
            producer = b.producer()
            ids = [await producer.queued() for _ in range(5)]
            await b.quiet()
            assert worker.pushed_ids == ids[:2]
            worker.finished(ids[1])
            await b.quiet()
            assert worker.pushed_ids == ids[:3]
            b.core.sessions.set_limit(worker.own, 0)
            worker.finished(ids[0])
            worker.finished(ids[2])
            await b.quiet()
            assert worker.pushed_ids == ids[:3]
            b.core.sessions.set_limit(worker.own, 5)
            await b.quiet()
            assert worker.pushed_ids == ids

    run(main())


def test_a_congested_worker_is_sent_nothing_until_it_is_clear(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            slow, producer = await b.worker(limit=5), b.producer()
            await b.quiet()
            b.core.sessions.set_congested(slow.own, congested=True)
            run_id = await producer.queued()
            await b.quiet()
            assert slow.pushed == []
            b.core.sessions.set_congested(slow.own, congested=False)
            await b.quiet()
            assert slow.pushed == [(run_id, 1)]

    run(main())


def test_runs_are_shared_among_the_workers_of_a_key_and_of_no_other(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            one, two, other = await b.worker(), await b.worker(), await b.worker("other")
            await b.quiet()
            ids = [created.id for created in await b.producer().submitted(make_run(), make_run(), make_run())]
            await b.quiet()
            assert sorted(one.pushed_ids + two.pushed_ids) == sorted(ids[:2])
            assert other.pushed == []

    run(main())


def test_of_one_batch_the_highest_priority_is_handed_off(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker()
            await b.quiet()
            low, high, later = make_run(), make_run(priority=9), make_run(priority=9, due=START + SECOND)
            created = await b.producer().submitted(later, low, high)
            C, L = Creation.CREATED, Creation.LEASED
            assert [c.how for c in created] == [C, C, L]
            await b.quiet()
            assert worker.pushed_ids == [high.id]
            worker.finished(high.id)
            await b.quiet()
            assert worker.pushed_ids == [high.id, low.id]

    run(main())


def test_a_high_priority_run_passes_a_full_window(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=Settings(window_size=4)) as b:
            worker, producer = await b.worker(limit=0), b.producer()
            low = [await producer.queued() for _ in range(20)]
            urgent = await producer.queued(priority=9)
            middle = await producer.queued(priority=5)
            await b.quiet()
            queue = b.core.dispatcher.queue("k")
            assert queue is not None
            assert len(queue) <= 4
            b.core.sessions.set_limit(worker.own, 1)
            expected = [urgent, middle, *low]
            for i, run_id in enumerate(expected):
                await worker.wait_for("run", i + 1)
                worker.finished(run_id)
            await b.quiet()
            assert worker.pushed_ids == expected

    run(main())


def test_an_expired_run_is_not_pushed_and_its_watchers_are_told(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            stale = await producer.queued(expires=START + SECOND)
            fresh = await producer.queued()
            await producer.watch(stale)
            b.clock.advance(1)
            dead_on_arrival = await producer.queued(expires=START)
            worker = await b.worker()
            await worker.wait_for("run")
            worker.finished(fresh)
            await b.quiet()
            assert worker.pushed_ids == [fresh]
            assert producer.of("finished") == [("finished", stale, S.CANCELLED, None)]
            for run_id in (stale, dead_on_arrival):
                assert await b.state(run_id) == (S.CANCELLED, "Expired")
            assert b.core.dispatcher.free_slots(worker.own.id) == 1

    run(main())


@pytest.mark.parametrize("priorities", [(0, 0), (0, 5), (5, 0)])
def test_the_same_run_twice_in_one_batch_is_pushed_once(path: Path, priorities: tuple[int, int]) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=5)
            await b.quiet()
            new = make_run()
            batch = [replace(new, priority=priority) for priority in priorities]
            created = await b.producer().submitted(*batch)
            assert [c.how is Creation.EXISTED for c in created] == [False, True]
            await b.quiet()
            assert worker.pushed == [(new.id, 1)]
            assert b.core.dispatcher.free_slots(worker.own.id) == 4

    run(main())


def test_a_run_submitted_again_is_pushed_once_wherever_it_is(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            producer, new = b.producer(), make_run()
            await producer.submitted(new)
            worker = await b.worker(limit=5)
            for step in ("queued or leased", "pushed", "started", "ended"):
                if step == "started":
                    worker.started(new.id)
                if step == "ended":
                    worker.finished(new.id)
                (created,) = await producer.submitted(new)
                assert created.how is Creation.EXISTED, step
                await b.quiet()
            assert worker.pushed == [(new.id, 1)]
            assert b.core.dispatcher.free_slots(worker.own.id) == 5

    run(main())


# --- Commit, then acknowledge, then enqueue -----------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 0], ids=["handed off", "queued"])
def test_nothing_is_acknowledged_or_pushed_before_its_commit(path: Path, limit: int) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(limit=limit), b.producer()
            await b.quiet()
            gate = b.executor.before = Gate()
            new = make_run()
            producer.submit(new)
            await gate.reached()
            for _ in range(10):
                await asyncio.sleep(0)
            assert producer.events == []
            assert worker.pushed == []
            assert b.core.dispatcher.queue("k") is not None
            assert len(b.core.dispatcher.queue("k") or ()) == 0, "nothing is enqueued before its commit either"
            gate.open()
            await producer.wait_for("submitted")
            b.core.sessions.set_limit(worker.own, 1)
            await worker.wait_for("run")
            assert worker.pushed == [(new.id, 1)]

    run(main())


def test_a_lease_is_not_pushed_before_its_commit(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=0)
            run_id = await b.producer().queued()
            await b.quiet()
            gate = b.executor.before = Gate()
            b.core.sessions.set_limit(worker.own, 1)
            await gate.reached()
            for _ in range(10):
                await asyncio.sleep(0)
            assert worker.pushed == []
            gate.open()
            await worker.wait_for("run")
            assert worker.pushed == [(run_id, 1)]

    run(main())


def test_a_report_is_neither_recorded_nor_told_before_its_commit(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(), b.producer()
            await b.quiet()
            run_id, next_ = await producer.queued(), await producer.queued()
            await producer.watch(run_id)
            await worker.wait_for("run")
            gate = b.executor.before = Gate()
            worker.finished(run_id)
            await gate.reached()
            for _ in range(10):
                await asyncio.sleep(0)
            assert worker.of("recorded", "settled") == []
            assert producer.of("finished") == []
            assert worker.pushed_ids == [run_id]
            gate.open()
            await producer.wait_for("finished")
            await worker.wait_for("run", 2)
            assert worker.pushed_ids == [run_id, next_]

    run(main())


@pytest.mark.parametrize("limit", [1, 0], ids=["handed off", "queued"])
def test_a_submit_that_cannot_be_written_leaves_no_trace_and_its_submitter_is_told(path: Path, limit: int) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(limit=limit), b.producer()
            await b.quiet()
            b.executor.fails = lambda operation: isinstance(operation, CreateRuns)
            new = make_run()
            producer.submit(new)
            _, outcome = await producer.wait_for("submitted")
            assert isinstance(outcome, StoreUnavailable)
            await b.quiet()
            assert worker.pushed == []
            assert b.core.dispatcher.free_slots(worker.own.id) == limit
            assert b.core.dispatcher.place_of(new.id) is None
            b.executor.fails = lambda _: False
            b.core.sessions.set_limit(worker.own, 1)
            (created,) = await producer.submitted(new)
            assert created.how in (Creation.CREATED, Creation.LEASED)
            await worker.wait_for("run")
            await b.quiet()
            assert worker.pushed == [(new.id, 1)]

    run(main())


# --- Connections that break in between ----------------------------------------------------------------------


@pytest.mark.parametrize("handed_off", [True, False])
def test_a_run_whose_connection_breaks_before_the_push_goes_to_another_worker_and_nothing_counts(
    path: Path, handed_off: bool
) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(limit=1 if handed_off else 0), b.producer()
            new = make_run()
            if not handed_off:
                await producer.submitted(new)
            await b.quiet()
            gate = b.executor.after = Gate()
            if handed_off:
                producer.submit(new)
            else:
                b.core.sessions.set_limit(worker.own, 1)
            await gate.reached()
            assert (await b.state(new.id)) == (S.PENDING, "Pending")
            worker.disconnect()
            gate.open()
            await producer.wait_for("submitted")
            other = await b.worker()
            await other.wait_for("run")
            assert worker.pushed == []
            assert other.pushed == [(new.id, 2)]
            record = await b.run(new.id)
            assert (record.losses, record.failures) == (0, 0)
            assert await b.names(new.id) == ["Scheduled", "Pending", "Requeued", "Pending"]

    run(main())


def test_a_worker_that_is_gone_before_its_session_is_open_is_given_nothing(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            run_id = await producer.queued()
            gate = b.executor.after = Gate()
            gone = Worker(b.core)
            gone.subscribe()
            await gate.reached()
            gone.disconnect()
            gate.open()
            await b.quiet()
            assert len(b.executor.executed(OpenSession)) == 1
            assert await b.state(run_id) == (S.SCHEDULED, "Scheduled")
            worker = await b.worker()
            await worker.wait_for("run")
            assert worker.pushed == [(run_id, 1)]

    run(main())


def test_a_worker_that_is_gone_before_its_session_is_resumed_is_given_nothing(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            first, producer = await b.worker(), b.producer()
            await b.quiet()
            held = await producer.queued()
            await first.wait_for("run")
            first.disconnect()
            waiting = await producer.queued()
            gate = b.executor.after = Gate()
            gone = Worker(b.core, limit=5)
            gone.subscribe(first, [(held, 1)])
            await gate.reached()
            gone.disconnect()
            gate.open()
            await b.quiet()
            assert (await b.run(waiting)).attempt == 0
            assert (await b.run(held)).state.type is S.PENDING
            b.later(5.5)
            await b.quiet()
            assert (await b.run(held)).losses == 1

    run(main())


# --- Load ---------------------------------------------------------------------------------------------------


def test_runs_of_a_key_without_a_worker_take_no_memory_and_hold_nobody_up(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            for start in range(0, 1001, 143):
                runs = [make_run("nobody", due=START + (i % 3) * SECOND) for i in range(start, start + 143)]
                await producer.submitted(*runs)
            await b.quiet()
            dispatcher = b.core.dispatcher
            assert list(dispatcher.demanded_keys()) == []
            assert (len(dispatcher._places), dispatcher._arriving) == (0, {})
            assert b.core.dispatching._due._next == {}
            assert b.core.store.waiting == 0
            worker = await b.worker("somebody")
            await b.quiet()
            run_id = await producer.queued("somebody")
            await worker.wait_for("run")
            assert worker.pushed_ids == [run_id]
            assert (await b.core.store.backlog()).queued == 1001

    run(main())


def test_the_window_of_a_large_backlog_stays_small(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=Settings(window_size=8)) as b:
            worker, producer = await b.worker(limit=3), b.producer()
            runs = [make_run() for _ in range(200)]
            await producer.submitted(*runs)
            largest = 0
            for i, new in enumerate(runs):
                await worker.wait_for("run", i + 1)
                largest = max(largest, len(b.core.dispatcher.queue("k") or ()))
                worker.finished(new.id)
            await b.quiet()
            assert worker.pushed_ids == [new.id for new in runs]
            assert largest <= 8

    run(main())


def test_submits_are_put_off_while_too_much_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "MAX_WAITING", 10)
    monkeypatch.setattr(submit, "MAX_WAITING_BYTES", 1000)

    async def main() -> None:
        async with broker(path) as b:
            producer, submissions = b.producer(), b.core.submissions
            submissions.check_load()
            gate = b.executor.before = Gate()
            producer.submit(*(make_run() for _ in range(10)))
            with pytest.raises(Overloaded, match="too many writes") as overloaded:
                submissions.check_load()
            assert 0 < overloaded.value.retry_after <= 1
            gate.open()
            await b.quiet()
            submissions.check_load()
            gate = b.executor.before = Gate()
            producer.submit(make_run(parameters=b'"' + b"x" * 1000 + b'"'))
            with pytest.raises(Overloaded):
                submissions.check_load()
            gate.open()
            await b.quiet()
            submissions.check_load()

    run(main())


def test_the_largest_submit_is_one_batch_with_an_outcome_each(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=10)
            await b.quiet()
            runs = [make_run() for _ in range(MAX_RUNS_PER_SUBMIT)]
            created = await b.producer().submitted(*runs)
            assert [c.id for c in created] == [new.id for new in runs]
            await b.quiet()
            assert worker.pushed_ids == [new.id for new in runs[:10]]
            assert len(b.executor.executed(CreateRuns)) == 1

    run(main())


def test_large_payloads_are_pushed_in_several_frames(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            frames: list[int] = []

            class Counting(Worker):
                def runs(self, runs: object) -> None:
                    frames.append(len(runs))  # type: ignore[arg-type]
                    super().runs(runs)  # type: ignore[arg-type]

            parameters = b'"' + b"x" * 100_000 + b'"'
            ids = [await b.producer().queued(parameters=parameters) for _ in range(7)]
            worker = await Counting(b.core, limit=10).connected()
            await b.quiet()
            assert worker.pushed_ids == ids
            assert frames == [2, 2, 2, 1]

    run(main())


def test_a_submitted_frame_becomes_a_record() -> None:
    from datetime import UTC, datetime

    from runlane.protocol.messages import NewRun
    from runlane_broker.core.submit import new_run

    at = datetime(2025, 6, 15, 12, 0, 0, 5, tzinfo=UTC)
    frame = NewRun(id=new_id(), task_key="k", parameters=msgspec.Raw(b"{ }"), scheduled_time=at, expires=at)
    record = new_run(frame, START)
    assert (record.due, record.expires) == (1_749_988_800_000_005,) * 2
    assert (record.name, record.parameters, record.retry_delay) == ("k", b"{ }", (0.0,))
    frame = NewRun(id=new_id(), task_key="k", name="n", retry_delay=(1.0, 2.0))
    record = new_run(frame, START)
    assert (record.due, record.expires, record.name, record.retry_delay) == (START, None, "n", (1.0, 2.0))
