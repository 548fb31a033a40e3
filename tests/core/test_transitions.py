"""States that somebody asks for, and deletes: what follows for holders, windows and watchers, in every order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runlane.protocol.states import FINAL, StateType
from runlane_broker.errors import StoreUnavailable
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.orchestration.details import StateDetails
from runlane_broker.storage.operations.creating import CreateRuns
from runlane_broker.storage.operations.leasing import LeaseRuns
from runlane_broker.storage.operations.transitions import SetState
from runlane_broker.storage.records import Creation, NewFlowRun, Status, Surface, TransitionOutcome
from runlane_broker.storage.tables import FLOW_RUN, TASK_RUN

from ..support import SECOND, START, Gate, make_run, new_database, new_id, run
from .harness import Broker, Producer, Worker, broker

S = StateType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


async def ask(b: Broker, run_id: str, type_: StateType, *, force: bool = False, **rest: Any) -> TransitionOutcome:
    """Ask for a state of a task run."""
    outcome = await b.core.transitions.set_state(TASK_RUN, run_id, Proposed(type_, **rest), force=force)
    assert outcome is not None
    return outcome


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


async def gated(b: Broker) -> Gate:
    """Hold the writer up before its next group; what comes meanwhile makes one group, in its order."""
    gate = Gate()
    b.executor.before = gate
    beat = asyncio.create_task(b.core.beat())
    await gate.reached()
    b.executor.before = lambda _: None
    beat.add_done_callback(lambda _: None)
    return gate


# --- What follows for the watchers -------------------------------------------------------------------------


@pytest.mark.parametrize("held_run", [True, False])
@pytest.mark.parametrize(
    ("data", "result"),
    [(b'{"sum":5}', b'{"sum":5}'), (b"0", b"0"), (b"null", None), (b'{"type":"unpersisted"}', None), (None, None)],
)
def test_the_data_of_a_completed_state_are_the_result(
    path: Path, data: bytes | None, result: bytes | None, held_run: bool
) -> None:
    async def main() -> None:
        async with broker(path) as b:
            if held_run:
                _, producer, run_id = await held(b)
            else:
                producer = b.producer()
                run_id = await producer.queued()
                await producer.watch(run_id)
            await ask(b, run_id, S.COMPLETED, data=data)
            assert producer.of("finished") == [("finished", run_id, S.COMPLETED, result)]
            late = b.producer()
            await late.watch(run_id)
            assert late.of("finished") == [("finished", run_id, S.COMPLETED, result)]
            await ask(b, run_id, S.FAILED, data=b"1", force=True)
            later = b.producer()
            await later.watch(run_id)
            assert later.of("finished") == [("finished", run_id, S.FAILED, None)]

    run(main())


def test_a_run_that_is_created_completed_has_its_data_as_its_result(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            new = make_run(surface=Surface(Proposed(S.COMPLETED, data=b"[1]")))
            await b.core.transitions.create_task_runs([new])
            producer = b.producer()
            await producer.watch(new.id)
            assert producer.of("finished") == [("finished", new.id, S.COMPLETED, b"[1]")]

    run(main())


# --- What follows for the holder ----------------------------------------------------------------------------


@pytest.mark.parametrize("type_", sorted(FINAL))
def test_an_end_stops_the_holder_and_frees_its_slot(path: Path, type_: StateType) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b)
            waiting = await producer.queued()
            await ask(b, run_id, type_)
            await worker.wait_for("run", 2)
            assert worker.of("cancel", "lease_lost") == [("cancel", run_id, 1), ("lease_lost", run_id, 1)]
            assert worker.pushed_ids == [run_id, waiting]
            assert producer.of("finished") == [("finished", run_id, type_, None)]
            worker.finished(run_id)
            await b.quiet()
            assert worker.of("lease_lost", "recorded")[1:] == [("lease_lost", run_id, 1)]
            assert (await b.state(run_id))[0] is type_

    run(main())


@pytest.mark.parametrize("type_", [S.PENDING, S.RUNNING])
def test_a_beginning_leaves_the_lease(path: Path, type_: StateType) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b, started=False)
            assert (await ask(b, run_id, type_, force=True)).wrote
            worker.finished(run_id)
            await worker.wait_for("recorded")
            assert worker.of("cancel", "lease_lost") == []
            assert producer.of("finished") == [("finished", run_id, S.COMPLETED, None)]

    run(main())


@pytest.mark.parametrize("reported", [S.COMPLETED, S.FAILED, S.CANCELLED])
def test_a_cancel_reaches_the_holder_and_the_truth_wins(path: Path, reported: StateType) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b, retries=3)
            assert (await ask(b, run_id, S.CANCELLING)).wrote
            assert worker.of("cancel", "lease_lost") == [("cancel", run_id, 1)]
            worker.finished(run_id, type_=reported.value)
            await worker.wait_for("recorded")
            end = S.COMPLETED if reported is S.COMPLETED else S.CANCELLED
            assert producer.of("finished") == [("finished", run_id, end, None)]

    run(main())


def test_who_starts_what_is_being_cancelled_is_told_again(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, _, run_id = await held(b, started=False)
            await ask(b, run_id, S.CANCELLING)
            worker.started(run_id)
            await worker.wait_for("cancel", 2)
            assert (await b.state(run_id))[0] is S.CANCELLING
            worker.finished(run_id, type_="CANCELLED")
            await b.quiet()

    run(main())


@pytest.mark.parametrize("type_", [S.CANCELLING, S.CANCELLED])
def test_a_holder_that_was_away_hears_of_it_when_it_is_back(path: Path, type_: StateType) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, _, run_id = await held(b)
            worker.disconnect()
            await ask(b, run_id, type_)
            back = await Worker(b.core).connected(worker, [(run_id, 1)])
            assert back.answer is not None
            if type_ is S.CANCELLING:
                assert back.answer.resumed == (run_id,)
                assert back.of("cancel") == [("cancel", run_id, 1)]
                back.finished(run_id, type_="CANCELLED")
            else:
                assert [lost.id for lost in back.answer.lost] == [run_id]
            assert worker.of("cancel", "lease_lost") == []
            await b.quiet()

    run(main())


@pytest.mark.parametrize("failed", [False, True])
def test_a_leased_run_that_is_scheduled_goes_to_whoever_is_free(path: Path, failed: bool) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b, retries=1)
            worker.progress(run_id, 0.5)
            if failed:
                assert (await ask(b, run_id, S.FAILED)).status is Status.REJECT
            else:
                await ask(b, run_id, S.SCHEDULED, force=True)
            await worker.wait_for("run", 2)
            assert worker.pushed == [(run_id, 1), (run_id, 2)]
            assert worker.of("cancel", "lease_lost") == [("cancel", run_id, 1), ("lease_lost", run_id, 1)]
            assert producer.of("finished") == []
            late = b.producer()
            await late.watch(run_id)
            assert late.of("progress") == [], "it begins anew"
            worker.finished(run_id, 2)
            await producer.wait_for("finished")

    run(main())


def test_who_holds_a_run_that_is_deleted_is_told(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b)
            assert await b.core.transitions.delete(TASK_RUN, run_id)
            assert worker.of("cancel", "lease_lost") == [("lease_lost", run_id, 1)]
            assert producer.of("finished") == [("finished", run_id, S.CANCELLED, None)]
            assert b.core.dispatcher.free_slots(worker.own.id) == 1
            worker.finished(run_id)
            assert await worker.wait_for("recorded") == ("recorded", run_id, 1, True)
            assert not await b.core.transitions.delete(TASK_RUN, run_id)

    run(main())


@pytest.mark.parametrize("whole", [False, True])
def test_a_flow_run_that_is_deleted_takes_what_is_held_and_what_waits(path: Path, whole: bool) -> None:
    async def main() -> None:
        async with broker(path) as b:
            flow_id = (await b.core.flows.create("flow", (), {})).id
            flow_run = NewFlowRun(new_id(), flow_id, "run", Proposed(S.RUNNING))
            assert (await b.core.transitions.create_flow_run(flow_run)).how is Creation.CREATED
            worker = await b.worker()
            deferred = Proposed(S.SCHEDULED, details=StateDetails(deferred=True))
            runs = [make_run(surface=Surface(deferred, flow_run.id)) for _ in range(2)]
            await b.core.transitions.create_task_runs(runs)
            await worker.wait_for("run")
            if whole:
                await b.core.flows.delete(flow_id)
            else:
                assert await b.core.transitions.delete(FLOW_RUN, flow_run.id)
            assert worker.of("lease_lost") == [("lease_lost", runs[0].id, 1)]
            await b.quiet()
            assert worker.pushed_ids == [runs[0].id]
            assert await b.core.store.run_by_id(runs[1].id) is None

    run(main())


# --- What follows for the window ----------------------------------------------------------------------------

ENDS: dict[str, Callable[[Broker, str], Any]] = {
    "cancelled": lambda b, run_id: ask(b, run_id, S.CANCELLED),
    "deleted": lambda b, run_id: b.core.transitions.delete(TASK_RUN, run_id),
    "cancelled as one of many": lambda b, run_id: b.core.cancellations.cancel([run_id]),
    "taken by its client": lambda b, run_id: ask(b, run_id, S.PENDING),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_queued_run_that_has_left_never_starts(path: Path, end: Callable[[Broker, str], Any]) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, busy = await held(b)
            gone, waiting = await producer.queued(), await producer.queued()
            await b.quiet()
            queue = b.core.dispatcher.queue("k")
            assert queue is not None
            assert gone in queue
            await end(b, gone)
            assert gone not in queue
            worker.finished(busy)
            await worker.wait_for("run", 2)
            assert worker.pushed_ids == [busy, waiting]
            worker.finished(waiting)
            await b.quiet()
            worker.quit()
            await b.quiet()
        async with broker(path) as b:
            worker = await b.worker()
            await b.quiet()
            assert worker.pushed == []

    run(main())


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_lease_that_comes_after_it_is_refused(path: Path, end: Callable[[Broker, str], Any]) -> None:
    """The run is reserved already; its lease stands behind the write, in the same commit."""

    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            run_id = await producer.queued()
            worker = await b.worker(limit=0)
            await b.quiet()
            gate = await gated(b)
            ending = asyncio.ensure_future(end(b, run_id))
            await asyncio.sleep(0)
            b.core.sessions.set_limit(worker.own, 1)  # only now, or its lease could be the first
            queue = b.core.dispatcher.queue("k")
            assert queue is not None
            await b.settled_refills()
            assert b.core.store.waiting >= 2
            gate.open()
            await ending
            await b.quiet()
            assert worker.pushed == []
            assert b.core.dispatcher.free_slots(worker.own.id) == 1
            (lease,) = b.executor.executed(LeaseRuns)
            assert lease.run_ids == (run_id,), "it was tried"

    run(main())


@pytest.mark.parametrize("end", list(ENDS.values())[:2], ids=list(ENDS)[:2])
def test_a_lease_that_came_before_it_is_ended(path: Path, end: Callable[[Broker, str], Any]) -> None:
    """Insert and lease are on their way to the disk when somebody ends the run."""

    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(), b.producer()
            await b.quiet()
            gate = await gated(b)
            new = make_run()
            producer.submit(new)
            ending = asyncio.ensure_future(end(b, new.id))
            await asyncio.sleep(0)
            gate.open()
            await ending
            assert isinstance(b.executor.groups[-1][0], CreateRuns)
            assert worker.of("run", "lease_lost") == [
                ("run", new.id, 1, new.parameters),
                ("lease_lost", new.id, 1),
            ]
            assert b.core.dispatcher.free_slots(worker.own.id) == 1

    run(main())


def test_a_run_that_is_put_off_starts_then_and_not_before(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            run_id = await producer.queued()
            worker = await b.worker()
            gate = await gated(b)
            later = StateDetails(scheduled_time=START + 60 * SECOND)
            asking = asyncio.ensure_future(ask(b, run_id, S.SCHEDULED, details=later))
            await asyncio.sleep(0)
            await b.settled_refills()
            gate.open()
            await asking
            await b.quiet()
            assert worker.pushed == []
            b.clock.advance(60)
            b.core.dispatching.time_changed()
            await worker.wait_for("run")
            assert worker.pushed == [(run_id, 1)]

    run(main())


def test_a_run_that_has_ended_may_begin_anew(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b)
            worker.finished(run_id, type_="FAILED")
            await producer.wait_for("finished")
            await ask(b, run_id, S.SCHEDULED)
            await worker.wait_for("run", 2)
            await producer.watch(run_id)
            worker.finished(run_id, 2)
            await producer.wait_for("finished", 2)
            assert (await b.run(run_id)).run_count == 0, "it has never said that it started"

    run(main())


def test_what_its_client_waits_for_by_itself_is_not_handed_out(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker()
            new = make_run(retries=1, surface=Surface(Proposed(S.RUNNING)))
            await b.core.transitions.create_task_runs([new])
            assert (await ask(b, new.id, S.FAILED)).state.name == "AwaitingRetry"
            await b.quiet()
            assert worker.pushed == []
        async with broker(path) as b:
            worker = await b.worker()
            await b.quiet()
            assert worker.pushed == []
            await ask(b, new.id, S.SCHEDULED)
            await worker.wait_for("run")

    run(main())


# --- What follows for those who ask -------------------------------------------------------------------------


def test_runs_that_are_created_are_dispatched_with_their_commit(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=2)
            await b.quiet()
            runs = [make_run(surface=Surface(Proposed(type_))) for type_ in (S.SCHEDULED, S.PENDING, S.SCHEDULED)]
            created = await b.core.transitions.create_task_runs(runs)
            hows = [Creation.LEASED, Creation.CREATED, Creation.LEASED]
            assert [outcome.how for outcome in created] == hows
            assert worker.pushed_ids == [runs[0].id, runs[2].id]
            assert b.executor.executed(LeaseRuns) == []

    run(main())


def test_a_refusal_has_no_consequences(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b)
            outcome = await ask(b, run_id, S.PENDING)
            assert (outcome.status, outcome.wrote) == (Status.ABORT, False)
            assert worker.of("cancel", "lease_lost") == producer.of("finished") == []
            assert await b.core.transitions.set_state(TASK_RUN, new_id(), Proposed(S.PENDING)) is None
            worker.finished(run_id)
            await worker.wait_for("recorded")

    run(main())


def test_what_cannot_be_written_has_no_consequences(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, _, run_id = await held(b)
            b.executor.fails = lambda operation: isinstance(operation, SetState)
            with pytest.raises(StoreUnavailable):
                await ask(b, run_id, S.CANCELLED)
            assert worker.of("cancel", "lease_lost") == []
            assert b.core.dispatcher.free_slots(worker.own.id) == 0

    run(main())


def test_who_does_not_wait_for_the_answer_cancels_nothing(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer, run_id = await held(b)
            gate = await gated(b)
            asking = asyncio.ensure_future(ask(b, run_id, S.CANCELLED))
            await asyncio.sleep(0)
            asking.cancel()
            gate.open()
            await producer.wait_for("finished")
            assert worker.of("lease_lost") == [("lease_lost", run_id, 1)]

    run(main())


def test_a_run_has_the_name_it_was_given(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            run_id = await b.producer().queued()
            assert await b.core.transitions.change(TASK_RUN, run_id, {"name": "other"})
            assert (await b.run(run_id)).name == "other"
            assert not await b.core.transitions.change(TASK_RUN, new_id(), {"name": "other"})

    run(main())
