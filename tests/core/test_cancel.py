"""Runs that are cancelled, and parked ones that are queued again: what follows for holders, windows, watchers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runlane.protocol.states import FINAL, StateType
from runlane_broker.core import cancel
from runlane_broker.core.cancel import Changed, Outcomes
from runlane_broker.errors import StoreUnavailable
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.orchestration.details import StateDetails
from runlane_broker.schemas.filters import ALL, AnyOf, Filters, TaskRunFilter
from runlane_broker.settings import Settings
from runlane_broker.storage.operations.cancelling import BATCH, CancelRuns, RequeueRuns
from runlane_broker.storage.operations.creating import CreateRuns
from runlane_broker.storage.operations.leasing import LeaseRuns
from runlane_broker.storage.records import Status, Surface
from runlane_broker.storage.tables import TASK_RUN

from ..support import Gate, make_run, new_database, new_id, run
from .harness import Broker, Producer, Worker, broker

S = StateType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


def states(outcomes: Outcomes) -> list[tuple[StateType, bool] | None]:
    """The states that the runs are in now, and whether they were written now."""
    return [None if one is None else (one.state.type, one.wrote) for one in outcomes]


async def held(b: Broker, *, started: bool = True, **changes: Any) -> tuple[Worker, Producer, str]:
    """A worker with one run, and somebody who watches it."""
    worker, producer = await b.worker(), b.producer()
    run_id = await producer.queued(**changes)
    await worker.wait_for("run")
    await producer.watch(run_id)
    if started:
        worker.started(run_id)
    await b.quiet()
    return worker, producer, run_id


async def lost(b: Broker, worker: Worker) -> None:
    worker.disconnect()
    b.core.sessions.lose(worker.own)
    await b.quiet()


async def parked(b: Broker, *keys: str, losses: int = 5) -> list[str]:
    """Runs that have cost so many workers."""
    producer = b.producer()
    runs = [await producer.queued(key) for key in keys]
    for _ in range(losses):
        worker = await b.worker(*set(keys), limit=len(keys))
        await worker.wait_for("run", len(keys))
        await lost(b, worker)
    assert [await b.state(run_id) for run_id in runs] == [(S.CRASHED, "Parked")] * len(runs)
    return runs


async def gated(b: Broker) -> Gate:
    """Hold the writer up before its next group; what comes meanwhile makes one group, in its order."""
    gate = Gate()
    b.executor.before = gate
    beat = asyncio.create_task(b.core.beat())
    await gate.reached()
    b.executor.before = lambda _: None
    beat.add_done_callback(lambda _: None)
    return gate


# --- Where a run may be -------------------------------------------------------------------------------------


def test_each_is_cancelled_where_it_is(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, running = await held(b)
            queued = await producer.queued()
            later = make_run(due=b.clock.now() + 60_000_000)
            await producer.submitted(later)
            paused = make_run(surface=Surface(Proposed(S.PENDING)))
            await b.core.transitions.create_task_runs([paused])
            await producer.watch(queued, later.id, paused.id)
            ids = [running, queued, later.id, paused.id, new_id(), queued]
            outcomes = await b.core.cancellations.cancel(ids)
            assert states(outcomes) == [
                (S.CANCELLING, True), *[(S.CANCELLED, True)] * 3, None, (S.CANCELLED, False),
            ]  # fmt: skip
            assert worker.of("cancel", "lease_lost") == [("cancel", running, 1)]
            ended = [run_id for _, run_id, type_, _ in producer.of("finished") if type_ is S.CANCELLED]
            assert ended == [queued, later.id, paused.id]
            assert await b.names(queued) == ["Scheduled", "Cancelled"]
            record = await b.run(queued)
            assert (record.state.message, record.end_time) == ("The run was cancelled.", record.state.timestamp)
            worker.finished(running, type_="CANCELLED")
            await worker.wait_for("recorded")
            assert await b.state(running) == (S.CANCELLED, "Cancelled")

    run(main())


def test_both_ways_to_cancel_what_waits_write_the_same(path: Path) -> None:
    """One is short, for there may be many; the other asks the rules."""

    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            one, other = await producer.queued(), await producer.queued()
            await b.core.cancellations.cancel([one])
            await b.core.transitions.set_state(
                TASK_RUN, other, Proposed(S.CANCELLING, message="The run was cancelled.")
            )
            short, long = await b.run(one), await b.run(other)
            changed = (
                "id",
                "dynamic_key",
                "created",
                "updated",
                "state",
                "due",
                "end_time",
                "start_time",
                "expected_start_time",
                "payload_hash",
            )
            same = {name: getattr(long, name) for name in changed if hasattr(long, name)}
            assert msgspec.structs.replace(short, **same) == long
            assert (short.start_time, short.end_time) == (short.state.timestamp, short.state.timestamp)
            assert (long.start_time, long.end_time) == (long.state.timestamp, long.state.timestamp)

    run(main())


def test_a_failure_that_waits_for_its_retry_leaves_no_error_behind(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b, retries=1, retry_delay=(60.0,))
            worker.finished(run_id, type_="FAILED", error=b"{}")
            await worker.wait_for("recorded")
            assert states(await b.core.cancellations.cancel([run_id])) == [(S.CANCELLED, True)]
            assert (await b.run(run_id)).error is None
            assert producer.of("finished") == [("finished", run_id, S.CANCELLED, None)]

    run(main())


def test_who_cancels_again_in_whatever_way_writes_nothing(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, _, run_id = await held(b)
            assert states(await b.core.cancellations.cancel([run_id])) == [(S.CANCELLING, True)]
            names = await b.names(run_id)
            assert states(await b.core.cancellations.cancel([run_id])) == [(S.CANCELLING, False)]
            outcome = await b.core.transitions.set_state(TASK_RUN, run_id, Proposed(S.CANCELLING))
            assert outcome is not None
            assert (outcome.status, outcome.state.type, outcome.wrote) == (Status.REJECT, S.CANCELLING, False)
            assert await b.names(run_id) == names
            assert worker.of("cancel") == [("cancel", run_id, 1)]

    run(main())


def test_a_completed_run_whose_end_is_asked_to_be_a_cancel_keeps_it(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            _, producer, run_id = await held(b)
            assert (await b.core.transitions.set_state(TASK_RUN, run_id, Proposed(S.COMPLETED))).wrote  # type: ignore[union-attr]
            names, end = await b.names(run_id), (await b.run(run_id)).end_time
            outcome = await b.core.transitions.set_state(TASK_RUN, run_id, Proposed(S.CANCELLED))
            assert outcome is not None
            assert (outcome.status, outcome.state.type, outcome.wrote) == (Status.REJECT, S.COMPLETED, False)
            assert (await b.names(run_id), (await b.run(run_id)).end_time) == (names, end)
            assert producer.of("finished") == [("finished", run_id, S.COMPLETED, None)]

    run(main())


@pytest.mark.parametrize("end", sorted(FINAL))
def test_what_has_ended_stays_as_it_is(path: Path, end: StateType) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b)
            worker.finished(run_id, type_=end.value)
            await worker.wait_for("recorded")
            names = await b.names(run_id)
            assert states(await b.core.cancellations.cancel([run_id])) == [(end, False)]
            assert await b.names(run_id) == names
            assert len(producer.of("finished")) == 1
            assert worker.of("cancel") == []

    run(main())


def test_who_is_asked_to_stop_is_asked_once(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, _, run_id = await held(b)
            assert states(await b.core.cancellations.cancel([run_id])) == [(S.CANCELLING, True)]
            assert states(await b.core.cancellations.cancel([run_id])) == [(S.CANCELLING, False)]
            assert worker.of("cancel") == [("cancel", run_id, 1)]
            assert await b.names(run_id) == ["Scheduled", "Pending", "Running", "Cancelling"]
            worker.finished(run_id)
            await worker.wait_for("recorded")
            assert (await b.state(run_id))[0] is S.COMPLETED, "the truth wins"

    run(main())


# --- Races --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lease_first", [True, False])
def test_of_a_cancel_and_a_lease_the_first_one_wins(path: Path, lease_first: bool) -> None:
    """Both are on their way to the disk, in one group."""

    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            run_id = await producer.queued()
            await b.quiet()
            worker = await b.worker(limit=0)
            await b.quiet()
            gate = await gated(b)
            if lease_first:
                b.core.sessions.set_limit(worker.own, 1)
                await b.settled_refills()
            cancelling = asyncio.ensure_future(b.core.cancellations.cancel([run_id]))
            await asyncio.sleep(0)
            if not lease_first:
                b.core.sessions.set_limit(worker.own, 1)
                await b.settled_refills()
            gate.open()
            outcomes = await cancelling
            await b.quiet()
            assert b.executor.executed(LeaseRuns)
            if lease_first:
                assert states(outcomes) == [(S.CANCELLING, True)]
                assert worker.of("run", "cancel")[0][:2] == ("run", run_id)
                assert worker.of("cancel") == [("cancel", run_id, 1)]
                worker.started(run_id)
                await worker.wait_for("cancel", 2)  # it is told again
                worker.finished(run_id, type_="CANCELLED")
                await b.quiet()
            else:
                assert states(outcomes) == [(S.CANCELLED, True)]
                assert worker.pushed == []
            assert await b.state(run_id) == (S.CANCELLED, "Cancelled")
            assert b.core.dispatcher.free_slots(worker.own.id) == 1

    run(main())


def test_a_run_that_is_handed_off_with_its_insert_is_being_cancelled(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(), b.producer()
            await b.quiet()
            gate = await gated(b)
            new = make_run()
            producer.submit(new)
            cancelling = asyncio.ensure_future(b.core.cancellations.cancel([new.id]))
            await asyncio.sleep(0)
            gate.open()
            assert states(await cancelling) == [(S.CANCELLING, True)]
            assert isinstance(b.executor.groups[-1][0], CreateRuns)
            assert [event[:2] for event in worker.of("run", "cancel")] == [("run", new.id), ("cancel", new.id)]
            worker.finished(new.id, type_="CANCELLED")
            await b.quiet()
            assert await b.names(new.id) == ["Scheduled", "Pending", "Cancelling", "Cancelled"]

    run(main())


def test_a_report_and_a_cancel_in_one_group_end_in_one_state(path: Path) -> None:
    async def main() -> None:
        for report_first in (True, False):
            async with broker(path) as b:
                worker, producer, run_id = await held(b, retries=3)
                gate = await gated(b)
                if report_first:
                    worker.finished(run_id)
                cancelling = asyncio.ensure_future(b.core.cancellations.cancel([run_id]))
                await asyncio.sleep(0)
                if not report_first:
                    worker.finished(run_id)
                gate.open()
                expected = (S.COMPLETED, False) if report_first else (S.CANCELLING, True)
                assert states(await cancelling) == [expected]
                await b.quiet()
                assert len(worker.of("recorded")) == 1
                assert worker.of("cancel") == [], "its report is here already"
                assert (await b.state(run_id))[0] is S.COMPLETED
                assert len(producer.of("finished")) == 1
                worker.quit()
                await b.quiet()

    run(main())


def test_it_is_cancelling_as_long_as_its_session_may_come_back_and_cancelled_when_that_is_lost(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b)
            worker.disconnect()
            assert states(await b.core.cancellations.cancel([run_id])) == [(S.CANCELLING, True)]
            b.later(b.core.settings.timers.resume / 2)
            await b.quiet()
            assert (await b.state(run_id))[0] is S.CANCELLING
            back = await Worker(b.core).connected(worker, [(run_id, 1)])
            assert back.of("cancel") == [("cancel", run_id, 1)]
            await lost(b, back)
            assert await b.state(run_id) == (S.CANCELLED, "Cancelled")
            assert producer.of("finished") == [("finished", run_id, S.CANCELLED, None)]

    run(main())


def test_a_cancelled_run_stays_so_at_the_next_broker(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b)
            queued = await producer.queued()
            await b.core.cancellations.cancel([run_id, queued])
            worker.gone = True
        async with broker(path) as b:
            back = await Worker(b.core).connected(worker, [(run_id, 1)])
            assert back.of("cancel") == [("cancel", run_id, 1)]
            back.finished(run_id, type_="FAILED")
            await back.wait_for("recorded")
            assert (await b.state(run_id))[0] is S.CANCELLED
            assert (await b.state(queued))[0] is S.CANCELLED
            await b.quiet()
            assert back.pushed == []

    run(main())


def test_what_cannot_be_written_cancels_nothing(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            _, producer, _ = await held(b)
            run_id = await producer.queued()
            b.executor.fails = lambda _: True
            with pytest.raises(StoreUnavailable):
                await b.core.cancellations.cancel([run_id])
            b.executor.fails = lambda _: False
            assert (await b.state(run_id))[0] is S.SCHEDULED
            queue = b.core.dispatcher.queue("k")
            assert queue is not None
            assert run_id in queue

    run(main())


# --- By filter ----------------------------------------------------------------------------------------------


def of_key(key: str) -> Filters:
    return Filters(task_runs=TaskRunFilter(task_key=AnyOf(any_=(key,))))


def test_all_that_a_filter_takes_are_cancelled_in_batches_and_others_have_their_turn(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, running = await held(b)
            count = 2 * BATCH + 1
            await producer.submitted(*(make_run() for _ in range(count)))
            other = await producer.queued("other")
            between: list[int] = []

            def note(operations: Sequence[Any]) -> None:
                between.append(
                    sum(operation.weight for operation in operations if isinstance(operation, CancelRuns))
                )

            b.executor.before = note
            assert await b.core.cancellations.cancel_all(of_key("k")) == Changed(
                {S.CANCELLED: count, S.CANCELLING: 1}, more=False
            )
            b.executor.before = lambda _: None
            assert [size for size in between if size] == [BATCH, BATCH, 2]
            assert (await b.state(other))[0] is S.SCHEDULED
            worker.finished(running)
            await b.quiet()
            assert worker.pushed_ids == [running]
            assert await b.core.cancellations.cancel_all(of_key("k")) == Changed({}, more=False)

    run(main())


def test_one_request_takes_so_many_and_says_that_there_are_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "MAX_BY_FILTER", 3)

    async def main() -> None:
        async with broker(path) as b:
            await b.producer().submitted(*(make_run() for _ in range(4)))
            assert await b.core.cancellations.cancel_all(ALL) == Changed({S.CANCELLED: 3}, more=True)
            assert await b.core.cancellations.cancel_all(ALL) == Changed({S.CANCELLED: 1}, more=False)

    run(main())


# --- Requeuing ----------------------------------------------------------------------------------------------


def test_a_parked_run_is_queued_again_and_may_lose_as_many_workers_as_before(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=replace(Settings(), max_losses=2)) as b:
            (run_id,) = await parked(b, "k", losses=2)
            producer = b.producer()
            assert states(await b.core.cancellations.requeue([run_id, new_id()])) == [(S.SCHEDULED, True), None]
            await producer.watch(run_id)
            assert await b.state(run_id) == (S.SCHEDULED, "Requeued")
            assert (await b.run(run_id)).end_time is None
            worker = await b.worker()
            await worker.wait_for("run")
            assert worker.pushed == [(run_id, 3)]
            await lost(b, worker)
            assert await b.state(run_id) == (S.SCHEDULED, "Requeued"), "once is not too often"
            worker = await b.worker()
            await worker.wait_for("run")
            worker.started(run_id, 4)
            worker.finished(run_id, 4)
            await worker.wait_for("recorded")
            assert producer.of("finished") == [("finished", run_id, S.COMPLETED, None)]

    run(main())


def test_a_parked_run_is_queued_again_as_it_waited_before(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=replace(Settings(), max_losses=2)) as b:
            due = b.clock.now() - 60_000_000
            details = StateDetails(
                scheduled_time=due, task_parameters_id="p", traceparent="t", deferred=True, transition_id="x"
            )
            new = make_run(due=due, surface=Surface(Proposed(S.SCHEDULED, details=details)))
            await b.core.transitions.create_task_runs([new])
            for _ in range(2):
                worker = await b.worker()
                await worker.wait_for("run")
                await lost(b, worker)
            assert await b.state(new.id) == (S.CRASHED, "Parked")
            assert states(await b.core.cancellations.requeue([new.id])) == [(S.SCHEDULED, True)]
            kept = msgspec.structs.replace(details, task_run_id=new.id, transition_id=None)
            assert (await b.run(new.id)).state.details == kept
            assert (await b.run(new.id)).due == due

    run(main())


def test_a_run_that_waits_for_a_worker_is_given_to_one_as_soon_as_it_is_requeued(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=replace(Settings(), max_losses=1)) as b:
            (run_id,) = await parked(b, "k", losses=1)
            worker = await b.worker()
            await b.quiet()
            assert worker.pushed == []
            await b.core.cancellations.requeue([run_id])
            await worker.wait_for("run")
            assert worker.pushed == [(run_id, 2)]

    run(main())


@pytest.mark.parametrize("state", [S.SCHEDULED, S.RUNNING, S.COMPLETED, S.FAILED, S.CANCELLED, S.CRASHED])
def test_only_what_is_parked_is_requeued(path: Path, state: StateType) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b)
            if state is S.SCHEDULED:
                run_id = await producer.queued()
            elif state is not S.RUNNING:
                worker.finished(run_id, type_=state.value)
                await b.quiet()
            names = await b.names(run_id)
            (outcome,) = await b.core.cancellations.requeue([run_id])
            assert outcome is not None
            assert not outcome.wrote
            assert "only one that is Parked" in (outcome.reason or "")
            assert await b.names(run_id) == names

    run(main())


def test_all_parked_runs_of_a_filter_are_requeued(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=replace(Settings(), max_losses=1)) as b:
            one, two, other = await parked(b, "k", "k", "other", losses=1)
            assert await b.core.cancellations.requeue_all(of_key("k")) == Changed({S.SCHEDULED: 2}, more=False)
            assert (await b.state(other))[0] is S.CRASHED
            assert await b.core.cancellations.requeue_all(ALL) == Changed({S.SCHEDULED: 1}, more=False)
            worker = await b.worker("k", "other", limit=3)
            await worker.wait_for("run", 3)
            assert set(worker.pushed_ids) == {one, two, other}
            assert len(b.executor.executed(RequeueRuns)) == 2

    run(main())


def test_of_two_who_requeue_one_run_one_does(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=replace(Settings(), max_losses=1)) as b:
            (run_id,) = await parked(b, "k", losses=1)
            both = await asyncio.gather(*(b.core.cancellations.requeue([run_id]) for _ in range(2)))
            assert sorted(outcome.wrote for (outcome,) in both if outcome) == [False, True]
            assert (await b.names(run_id))[-2:] == ["Parked", "Requeued"]

    run(main())
