"""Flow runs that are pushed to who serves their work queue."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from runlane.protocol.states import StateType
from runlane_broker.errors import Conflict, Refused
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.orchestration.details import StateDetails
from runlane_broker.storage.flow_records import DeploymentValues
from runlane_broker.storage.operations.handing_out import Asked
from runlane_broker.storage.operations.leasing import LeaseRuns
from runlane_broker.storage.operations.queues import CreatePool, QueueKey
from runlane_broker.storage.queue_records import queue_key
from runlane_broker.storage.records import NewFlowRun, TransitionOutcome
from runlane_broker.storage.tables import FLOW_RUN

from ..support import SECOND, START, new_database, new_id, run
from .harness import Broker, Worker, broker

SCHEDULED = Proposed(StateType.SCHEDULED)


async def pool(b: Broker, *queues: str, limit: int | None = None, **limits: int | None) -> None:
    """A pool `p` with these queues, the first in line first; its default queue comes before them."""
    await b.core.queues.create_pool(CreatePool("p", concurrency_limit=limit))
    for name in queues:
        await b.core.queues.create("p", name, {"concurrency_limit": limits.get(name)})


async def flow_run(b: Broker, queue: str = "a", initial: Proposed = SCHEDULED, **changes: Any) -> str:
    """Create a flow run over HTTP's way in, and return its id."""
    made = await b.core.flows.create("flow", (), {})
    new = NewFlowRun(new_id(), made.id, "run", initial, work_pool_name="p", work_queue_name=queue, **changes)
    created = await b.core.transitions.create_flow_run(new)
    return created.id


async def set_state(b: Broker, run_id: str, type_: StateType, **changes: Any) -> TransitionOutcome:
    outcome = await b.core.transitions.set_state(FLOW_RUN, run_id, Proposed(type_, **changes))
    assert outcome is not None
    return outcome


async def state(b: Broker, run_id: str) -> tuple[StateType, str]:
    record = await b.core.store.flow_runs.get(run_id)
    assert record is not None
    return record.state.type, record.state.name


async def names(b: Broker, run_id: str) -> list[str]:
    return [state.name for state in await b.core.store.flow_runs.states(run_id)]


async def update(b: Broker, queue: str, **changes: Any) -> None:
    await b.core.queues.update(QueueKey(pool="p", name=queue), changes)


def due_in(seconds: float) -> Proposed:
    return Proposed(StateType.SCHEDULED, details=StateDetails(scheduled_time=START + round(seconds * SECOND)))


def test_a_run_is_pushed_when_it_is_created_and_reported_like_any_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            worker = await b.worker("p/a")
            run_id = await flow_run(b, parameters=b'{"x":1}')
            assert await worker.wait_for("run") == ("run", run_id, 1, b'{"x":1}')
            assert await state(b, run_id) == (StateType.PENDING, "Pending")
            worker.started(run_id)
            worker.finished(run_id, result=b'{"y":2}')
            assert await worker.wait_for("recorded") == ("recorded", run_id, 1, False)
            assert await names(b, run_id) == ["Scheduled", "Pending", "Running", "Completed"]
            record = await b.core.store.flow_runs.get(run_id)
            assert record is not None
            assert record.state.data == b'{"y":2}'
            assert record.run_count == 1

    run(main())


@pytest.mark.parametrize(
    ("name", "said"), [("q/a", "no work pool 'q'"), ("p/b", "no work queue 'p/b'"), ("p/f", "by a filter")]
)
def test_a_queue_that_is_not_there_is_refused_and_not_made(tmp_path: Path, name: str, said: str) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            await b.core.queues.create("p", "f", {"filter": '{"tags":["x"]}'})
            worker = Worker(b.core, "p/a", name)
            worker.subscribe()
            _, refused = await worker.wait_for("refused")
            assert isinstance(refused, Refused)
            assert said in refused.message
            assert refused.field == "queues[1]"
            assert len(b.core.registry) == 0
            assert await b.core.store.queues.queue_by_name("p", "b") is None

    run(main())


def test_the_first_queue_goes_first_and_limits_hold(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", "b", limit=3, a=1)
            low = [await flow_run(b, "b") for _ in range(3)]
            high = [await flow_run(b, "a") for _ in range(2)]
            worker = await b.worker("p/a", "p/b", limit=10)
            await b.quiet()
            assert worker.pushed_ids == [high[0], *low[:2]]
            worker.started(high[0])
            worker.finished(high[0])
            await worker.wait_for("recorded")
            await b.quiet()
            assert worker.pushed_ids[3:] == [high[1]]
            assert b.core.dispatcher.free_slots(worker.own.id) == 7

    run(main())


def test_limits_pauses_and_priorities_count_from_their_commit_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", "b", a=0)
            one, two = await flow_run(b, "a"), await flow_run(b, "a")
            other = await flow_run(b, "b")
            worker = await b.worker("p/a", "p/b", limit=1)
            await b.quiet()
            assert worker.pushed_ids == [other]
            await b.core.queues.update_pool("p", {"is_paused": True})
            await update(b, "a", concurrency_limit=None)
            worker.finished(other)
            await b.quiet()
            assert worker.pushed_ids == [other]
            await update(b, "a", is_paused=True)
            await b.core.queues.update_pool("p", {"is_paused": False})
            await b.quiet()
            assert worker.pushed_ids == [other]
            await update(b, "a", is_paused=False)
            await b.quiet()
            assert worker.pushed_ids == [other, one]
            last = await flow_run(b, "b")
            await update(b, "b", priority=1)
            worker.finished(one)
            await b.quiet()
            assert worker.pushed_ids == [other, one, last]
            worker.finished(last)
            await b.quiet()
            assert worker.pushed_ids == [other, one, last, two]

    run(main())


def test_the_runs_of_a_deleted_queue_are_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:  # whose auditor finds nothing in the end
            await pool(b, "a", a=0)
            await b.worker("p/a")
            run_id = await flow_run(b)
            await b.quiet()
            await b.core.queues.delete(QueueKey(pool="p", name="a"))
            await set_state(b, run_id, StateType.CANCELLED)
            await b.quiet()

    run(main())


@pytest.mark.parametrize(
    ("before", "after"),
    [({"is_paused": True}, {"is_paused": False}), ({"concurrency_limit": 0}, {"concurrency_limit": None})],
)
def test_who_subscribes_while_a_change_is_on_its_way_hears_of_it(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            await update(b, "a", **before)
            run_id = await flow_run(b)
            worker = Worker(b.core, "p/a")
            worker.subscribe()  # is written first, and is not known of yet
            await update(b, "a", **after)
            await b.quiet()
            assert worker.pushed_ids == [run_id]

    run(main())


async def _end_over_http(b: Broker, run_id: str) -> None:
    await set_state(b, run_id, StateType.COMPLETED)


async def _delete(b: Broker, run_id: str) -> None:
    assert await b.core.transitions.delete(FLOW_RUN, run_id)


async def _delete_flow(b: Broker, run_id: str) -> None:
    record = await b.core.store.flow_runs.get(run_id)
    assert record is not None
    waiting = await b.core.store.flow_runs.get(run_id)
    assert waiting is not None
    assert await b.core.transitions.delete_flow(record.flow_id)


@pytest.mark.parametrize("end", [_end_over_http, _delete])
@pytest.mark.parametrize("queue", ["a", "b"])
def test_a_slot_that_somebody_else_frees_wakes_the_queue(tmp_path: Path, end: Any, queue: str) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", "b", limit=1)
            polled = await flow_run(b, queue)
            assert (await set_state(b, polled, StateType.PENDING)).wrote
            assert (await set_state(b, polled, StateType.RUNNING)).wrote
            worker = await b.worker("p/a", limit=5)
            waiting = await flow_run(b, "a")
            await b.quiet()
            assert worker.pushed == []
            writes = b.core.store.waiting
            await b.quiet()
            assert b.core.store.waiting == writes, "it waits without trying again and again"
            await end(b, polled)
            await worker.wait_for("run")
            assert worker.pushed_ids == [waiting]

    run(main())


def test_deleting_a_flow_takes_its_runs_from_who_has_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", a=1)
            worker = await b.worker("p/a", limit=5)
            held, _ = await flow_run(b), await flow_run(b)
            await worker.wait_for("run")
            await _delete_flow(b, held)
            assert await worker.wait_for("lease_lost") == ("lease_lost", held, 1)
            await b.quiet()
            assert worker.pushed_ids == [held]
            new = await flow_run(b)
            await worker.wait_for("run", 2)
            assert worker.pushed_ids == [held, new]

    run(main())


def test_a_run_is_pushed_when_it_is_due_and_when_a_claim_on_it_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            now = await flow_run(b)
            assert await b.core.queues.hand_out_of_pool("p", None, Asked(5, claim_seconds=30))
            later = await flow_run(b, initial=due_in(60))
            worker = await b.worker("p/a", limit=5)
            await b.quiet()
            assert worker.pushed == []
            for seconds, expected in ((29, []), (1, [now]), (29, [now]), (1, [now, later])):
                b.clock.advance(seconds)
                worker.beat()
                b.core.dispatching.time_changed()
                await b.quiet()
                assert worker.pushed_ids == expected

    run(main())


def test_a_claim_takes_a_run_out_of_the_window(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            worker = await b.worker("p/a", limit=0)
            claimed = await flow_run(b)
            await b.core.queues.hand_out_of_pool("p", None, Asked(5, claim_seconds=30))
            b.core.sessions.set_limit(worker.own, 5)
            await b.quiet()
            assert worker.pushed == []
            assert (await set_state(b, claimed, StateType.PENDING)).wrote, "who claimed it starts it"

    run(main())


def test_a_claim_is_over_when_the_run_has_started(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            run_id = await flow_run(b)
            await b.core.queues.hand_out_of_pool("p", None, Asked(5, claim_seconds=3600))
            for type_ in (StateType.PENDING, StateType.RUNNING, StateType.FAILED):
                assert (await set_state(b, run_id, type_)).wrote
            assert await b.core.transitions.set_state(FLOW_RUN, run_id, SCHEDULED, force=True)
            assert await b.core.queues.hand_out_of_pool("p", None, Asked(5)), "whoever had claimed it is through"
            worker = await b.worker("p/a")
            await worker.wait_for("run")
            assert worker.pushed_ids == [run_id]

    run(main())


def test_a_run_that_its_process_retried_until_it_crashed_can_be_queued_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            run_id = await flow_run(b, retries=1)
            for type_ in (StateType.PENDING, StateType.RUNNING, StateType.FAILED, StateType.RUNNING):
                assert (await set_state(b, run_id, type_)).wrote
            assert (await set_state(b, run_id, StateType.CRASHED)).wrote
            assert await b.core.transitions.set_state(FLOW_RUN, run_id, SCHEDULED, force=True)
            assert await b.core.queues.hand_out_of_pool("p", None, Asked(5))
            worker = await b.worker("p/a")
            await worker.wait_for("run")
            assert worker.pushed_ids == [run_id]

    run(main())


async def _crash(b: Broker, run_id: str) -> None:
    assert (await set_state(b, run_id, StateType.CRASHED)).wrote


@pytest.mark.parametrize("end", [_end_over_http, _delete, _delete_flow, _crash])
def test_a_run_that_its_process_retries_keeps_its_slot_until_it_ends(tmp_path: Path, end: Any) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", a=1)
            retried, waiting = await flow_run(b, retries=1), await flow_run(b)
            for type_ in (StateType.PENDING, StateType.RUNNING, StateType.FAILED):
                assert (await set_state(b, retried, type_)).wrote
            assert await state(b, retried) == (StateType.SCHEDULED, "AwaitingRetry")
            worker = await b.worker("p/a", limit=5)
            assert not (await set_state(b, waiting, StateType.PENDING)).wrote
            assert await b.core.queues.hand_out_of_pool("p", None, Asked(5)) == ()
            await b.quiet()
            assert worker.pushed == []
            if end is not _delete_flow:
                assert (await set_state(b, retried, StateType.RUNNING)).wrote, "it has its slot already"
            await end(b, retried)
            if end is _delete_flow:
                waiting = await flow_run(b)
            await worker.wait_for("run")
            assert worker.pushed_ids == [waiting]

    run(main())


@pytest.mark.parametrize("stops", [StateType.PAUSED, StateType.SCHEDULED])
def test_a_run_that_its_process_has_retried_is_the_queues_again_once_that_lets_go_of_it(
    tmp_path: Path, stops: StateType
) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", a=1)
            retried, other = await flow_run(b, retries=2), await flow_run(b)
            for type_ in (StateType.PENDING, StateType.RUNNING, StateType.FAILED, StateType.RUNNING, stops):
                assert (await set_state(b, retried, type_)).wrote
            assert (await set_state(b, other, StateType.RUNNING)).wrote, "the slot is free"
            if stops is StateType.PAUSED:
                assert (await set_state(b, retried, StateType.SCHEDULED)).wrote
            assert not (await set_state(b, retried, StateType.RUNNING)).wrote, "its slot is somebody else's now"
            await set_state(b, other, StateType.COMPLETED)
            worker = await b.worker("p/a")
            await worker.wait_for("run")
            assert worker.pushed_ids == [retried]

    run(main())


# --- Queues with a filter -----------------------------------------------------------------------------------


async def filtering(b: Broker, limit: int = 1) -> str:
    """A queue `f` with a filter for the tag `x`, and a deployment: only the runs of one are a filter's."""
    await b.core.queues.create(None, "f", {"filter": '{"tags":["x"]}', "concurrency_limit": limit})
    flow = await b.core.flows.create("flow", (), {})
    values = DeploymentValues(None, None, None, None, (), {}, b"{}", b"{}", b"{}", False, False, None, None, None)
    return (await b.core.flows.put_deployment(flow.id, "d", values, None)).id


async def change_filtering(b: Broker, **changes: Any) -> None:
    await b.core.queues.update(QueueKey(name="f"), changes)


async def _end_by_worker(b: Broker, held: str, worker: Worker) -> None:
    worker.finished(held)


async def _end_by_somebody_else(b: Broker, held: str, worker: Worker) -> None:
    await set_state(b, held, StateType.COMPLETED)


async def _raise_limit(b: Broker, held: str, worker: Worker) -> None:
    await change_filtering(b, concurrency_limit=2)


async def _lift_limit(b: Broker, held: str, worker: Worker) -> None:
    await change_filtering(b, concurrency_limit=None)


async def _change_filter(b: Broker, held: str, worker: Worker) -> None:
    await change_filtering(b, filter='{"tags":["y"]}')


async def _delete_queue(b: Broker, held: str, worker: Worker) -> None:
    await b.core.queues.delete(QueueKey(name="f"))


async def _change_tags(b: Broker, held: str, worker: Worker) -> None:
    """Nobody says what that means for a filter: it is found out within a second."""
    await b.core.transitions.change(FLOW_RUN, held, {"tags": []})
    await b.quiet()
    assert worker.pushed_ids == [held]
    b.clock.advance(1)
    worker.beat()
    b.core.dispatching.time_changed()


@pytest.mark.parametrize(
    "release",
    [
        _end_by_worker,
        _end_by_somebody_else,
        _raise_limit,
        _lift_limit,
        _change_filter,
        _delete_queue,
        _change_tags,
    ],
)
def test_a_full_filter_holds_runs_back_until_it_has_a_slot(tmp_path: Path, release: Any) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", "b")
            deployment_id = await filtering(b)
            worker = await b.worker("p/a", "p/b", limit=10)
            found = {"deployment_id": deployment_id, "tags": ("x",)}
            held = await flow_run(b, "a", **found)
            await worker.wait_for("run")
            waiting = await flow_run(b, "b", **found)
            await b.quiet()
            assert worker.pushed_ids == [held]
            await release(b, held, worker)
            await worker.wait_for("run", 2)
            assert worker.pushed_ids == [held, waiting]

    run(main())


def test_who_is_held_back_by_a_filter_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    """Neither those behind it in its queue, however many it is, nor other queues; and it is not tried again."""

    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", "b", a=2)
            deployment_id = await filtering(b, limit=0)
            held = [await flow_run(b, deployment_id=deployment_id, tags=("x",)) for _ in range(5)]
            free = [await flow_run(b, queue, deployment_id=deployment_id) for queue in ("a", "b")]
            queue = await b.core.store.queues.queue_by_name("p", "a")
            assert queue is not None
            b.core.dispatcher.configure_task_key(queue_key(queue.pool_id, queue.id), 2)
            worker = await b.worker("p/a", "p/b", limit=3)
            await worker.wait_for("run", 2)
            held.append(await flow_run(b, deployment_id=deployment_id, tags=("x",)))
            new = await flow_run(b, deployment_id=deployment_id, tags=("y",))
            last = await flow_run(b, deployment_id=deployment_id)
            await worker.wait_for("run", 3)
            await b.quiet()
            assert worker.pushed_ids == [*free, new], "its queue has two slots"
            tried = [run_id for lease in b.executor.executed(LeaseRuns) for run_id in lease.run_ids]
            assert not set(held[:5]) & set(tried), "a read leaves them out"
            assert tried.count(held[5]) <= 1, "one that is created meanwhile may be tried, once"
            for run_id in worker.pushed_ids:
                worker.finished(run_id)
            await worker.wait_for("run", 4)
            worker.finished(last)
            await b.quiet()
            assert worker.pushed_ids == [*free, new, last], "slots of others are none of theirs"
            await change_filtering(b, concurrency_limit=2)
            await worker.wait_for("run", 6)
            await b.quiet()
            assert worker.pushed_ids[4:] == held[:2]
            for done, run_id in enumerate(held, 1):
                worker.finished(run_id)
                await worker.wait_for("recorded", 4 + done)
                await b.quiet()
                assert worker.pushed_ids[4:] == held[: done + 2], "in turn, and as many as there are slots"

    run(main())


# --- Starting by other ways ---------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [StateType.PENDING, StateType.RUNNING])
@pytest.mark.parametrize("limits", [{"a": 1}, {"limit": 1}])
def test_no_way_to_start_passes_a_full_queue_or_pool_but_by_force(
    tmp_path: Path, type_: StateType, limits: dict[str, int]
) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", **limits)
            busy = await flow_run(b, initial=Proposed(type_))
            waiting = await flow_run(b)
            refused = await set_state(b, waiting, type_)
            assert (refused.status, refused.wrote) == ("ABORT", False)
            assert "Concurrency limit reached" in (refused.reason or "")
            with pytest.raises(Conflict, match="Concurrency limit reached"):
                await flow_run(b, initial=Proposed(type_))
            assert await b.core.store.flow_runs.count() == 2, "nothing was created"
            assert (await set_state(b, busy, StateType.RUNNING)).wrote, "it has its slot"
            paused = await set_state(b, busy, StateType.PAUSED)
            assert paused.wrote
            assert (await set_state(b, waiting, type_)).wrote
            assert not (await set_state(b, busy, StateType.RUNNING)).wrote, "its slot is somebody else's now"
            forced = await b.core.transitions.set_state(FLOW_RUN, busy, Proposed(StateType.RUNNING), force=True)
            assert forced is not None
            assert forced.wrote
            last = await flow_run(b)
            for run_id in (busy, waiting):
                assert not (await set_state(b, last, type_)).wrote, "what was forced takes a slot, too"
                await set_state(b, run_id, StateType.COMPLETED)
            assert (await set_state(b, last, type_)).wrote

    run(main())


def test_polled_and_pushed_never_start_one_run_both(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            worker = await b.worker("p/a", limit=0)
            polled, pushed = await flow_run(b), await flow_run(b)
            await b.quiet()
            assert (await set_state(b, polled, StateType.PENDING)).wrote
            b.core.sessions.set_limit(worker.own, 5)
            await worker.wait_for("run")
            await b.quiet()
            assert worker.pushed_ids == [pushed]
            refused = await set_state(b, pushed, StateType.PENDING)
            assert not refused.wrote
            assert "cannot transition to a PENDING state" in (refused.reason or "")

    run(main())


def test_a_run_that_has_ended_is_not_started_by_who_polled_it_before(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            worker = await b.worker("p/a")
            for type_ in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                run_id = await flow_run(b)
                await worker.wait_for("run", len(worker.pushed) + 1)
                worker.finished(run_id, type_=type_)
                await b.quiet()
                assert not (await set_state(b, run_id, StateType.PENDING)).wrote, type_
                assert (await names(b, run_id))[-1] == type_.capitalize()

    run(main())


def test_a_failure_is_retried_out_of_the_queue(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", a=1)
            worker = await b.worker("p/a")
            run_id = await flow_run(b, retries=1, retry_delay=(10.0,))
            for attempt in (1, 2):
                await worker.wait_for("run", attempt)
                worker.started(run_id, attempt)
                worker.finished(run_id, attempt, "FAILED", error=b'{"message":"no"}')
                await worker.wait_for("recorded", attempt)
                await b.quiet()
                assert len(worker.pushed) == attempt
                b.clock.advance(10)
                worker.beat()
                b.core.dispatching.time_changed()
            assert await names(b, run_id) == [
                "Scheduled", "Pending", "Running", "AwaitingRetry", "Pending", "Retrying", "Failed",
            ]  # fmt: skip

    run(main())


def test_a_failure_that_is_told_over_http_ends_the_lease_and_is_retried_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            worker = await b.worker("p/a")
            run_id = await flow_run(b, retries=1)
            await worker.wait_for("run")
            worker.started(run_id)
            await b.quiet()
            await set_state(b, run_id, StateType.FAILED)
            assert await worker.wait_for("lease_lost") == ("lease_lost", run_id, 1)
            await worker.wait_for("run", 2)
            assert worker.pushed == [(run_id, 1), (run_id, 2)]

    run(main())


def test_a_run_is_cancelled_while_it_is_held(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", a=1)
            worker = await b.worker("p/a", limit=2)
            run_id, other = await flow_run(b), await flow_run(b)
            await worker.wait_for("run")
            worker.started(run_id)
            await b.quiet()
            await set_state(b, run_id, StateType.CANCELLING)
            assert await worker.wait_for("cancel") == ("cancel", run_id, 1)
            await b.quiet()
            assert worker.pushed_ids == [run_id], "until it has stopped it takes its slot"
            worker.finished(run_id, type_="CANCELLED")
            await worker.wait_for("run", 2)
            assert worker.pushed_ids == [run_id, other]
            assert await state(b, run_id) == (StateType.CANCELLED, "Cancelled")

    run(main())


async def cancel(b: Broker, run_id: str) -> TransitionOutcome:
    (outcome,) = await b.core.cancellations.cancel([run_id], FLOW_RUN)
    assert outcome is not None
    return outcome


def test_flow_runs_are_cancelled_as_task_runs_are(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", a=1)
            worker = await b.worker("p/a", limit=1)
            held, waiting = await flow_run(b), await flow_run(b)
            later = await flow_run(b, initial=due_in(60))
            await worker.wait_for("run")
            worker.started(held)
            await b.quiet()
            for run_id in (waiting, later):
                assert (await cancel(b, run_id)).wrote
                assert await state(b, run_id) == (StateType.CANCELLED, "Cancelled")
            assert (await cancel(b, held)).state.type is StateType.CANCELLING
            assert await worker.wait_for("cancel") == ("cancel", held, 1)
            assert not (await cancel(b, held)).wrote, "it is being cancelled already"
            worker.finished(held, type_="CANCELLED")
            await worker.wait_for("recorded")
            b.clock.advance(60)
            worker.beat()
            b.core.dispatching.time_changed()
            last = await flow_run(b)
            await worker.wait_for("run", 2)
            assert worker.pushed_ids == [held, last], "what was cancelled never starts"
            assert not (await cancel(b, held)).wrote
            assert await b.core.cancellations.cancel([new_id()], FLOW_RUN) == (None,)

    run(main())


def test_a_parked_flow_run_is_queued_again_with_its_losses_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", a=1)
            run_id = await flow_run(b)
            (refused,) = await b.core.cancellations.requeue([run_id], FLOW_RUN)
            assert refused is not None
            assert not refused.wrote, "it is not parked"
            for _ in range(b.core.settings.max_losses):
                worker = await b.worker("p/a")
                await worker.wait_for("run")
                worker.disconnect()
                b.later(b.core.settings.timers.resume + 1)
                await b.quiet()
            assert await state(b, run_id) == (StateType.CRASHED, "Parked")
            worker = await b.worker("p/a")
            (queued,) = await b.core.cancellations.requeue([run_id], FLOW_RUN)
            assert queued is not None
            assert queued.state.name == "Requeued"
            await worker.wait_for("run")
            assert worker.pushed == [(run_id, b.core.settings.max_losses + 1)]
            record = await b.core.store.flow_runs.get(run_id)
            assert record is not None
            assert record.losses == 0

    run(main())


def test_a_lost_session_gives_its_runs_back_and_parks_them_in_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        path = new_database(tmp_path)
        async with broker(path) as b:
            await pool(b, "a", a=1)
            run_id = await flow_run(b)
            for attempt in range(1, b.core.settings.max_losses + 1):
                worker = await b.worker("p/a")
                await worker.wait_for("run")
                assert worker.pushed == [(run_id, attempt)]
                worker.disconnect()
                b.later(b.core.settings.timers.resume + 1)
                await b.quiet()
            assert await state(b, run_id) == (StateType.CRASHED, "Parked")
            worker = await b.worker("p/a")
            another = await flow_run(b)
            await worker.wait_for("run")
            assert worker.pushed_ids == [another], "its slot is free"

    run(main())


def test_a_session_resumes_with_the_flow_runs_it_holds(tmp_path: Path) -> None:
    async def main() -> None:
        path = new_database(tmp_path)
        async with broker(path) as b:
            await pool(b, "a")
            first = await b.worker("p/a", "k", limit=3)
            held, unheard = await flow_run(b), await flow_run(b)
            await first.wait_for("run", 2)
            first.started(held)
            await b.quiet()
        async with broker(path) as b:
            second = Worker(b.core, "p/a", "k", limit=3)
            await second.connected(first, [(held, 1)])
            assert second.answer is not None
            assert second.answer.resumed == (held,)
            await second.wait_for("run")
            assert second.pushed == [(unheard, 2)]
            second.finished(held)
            await second.wait_for("recorded")
            assert await state(b, held) == (StateType.COMPLETED, "Completed")

    run(main())


@pytest.mark.parametrize("others", [("p/b",), ("k",), ()])
def test_a_session_resumes_without_a_queue_that_is_gone(tmp_path: Path, others: tuple[str, ...]) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a", "b")
            first = await b.worker("p/a", *others, limit=3)
            held = await flow_run(b)
            await first.wait_for("run")
            first.started(held)
            await update(b, "a", name="renamed")
            first.disconnect()
            second = Worker(b.core, "p/a", *others, limit=3)
            await second.connected(first, [(held, 1)])
            assert second.answer is not None
            assert second.answer.resumed == (held,)
            second.finished(held)
            await second.wait_for("recorded")
            assert await state(b, held) == (StateType.COMPLETED, "Completed")
            await flow_run(b, "renamed")
            other = await flow_run(b, "b")
            await b.quiet()
            assert second.pushed_ids == ([other] if "p/b" in others else [])

    run(main())


def test_a_deaf_worker_loses_a_flow_run_to_another(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            deaf = await b.worker("p/a")
            run_id = await flow_run(b)
            await deaf.wait_for("run")
            other = await b.worker("p/a")
            b.later(b.core.settings.timers.start + 1, deaf, other)
            await other.wait_for("run")
            assert other.pushed == [(run_id, 2)]

    run(main())


def test_who_serves_a_queue_need_not_poll_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runlane.queues")

    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            worker = await b.worker("p/a")
            for _ in range(2):
                queue = await b.core.store.queues.queue_by_name("p", "a")
                assert queue is not None
                assert queue.status == "READY"
                b.clock.advance(90)
                worker.beat()
                assert await b.core.queues.forget_polls() == 0
            worker.quit()
            await b.quiet()
            b.clock.advance(90)
            assert await b.core.queues.forget_polls() == 1
            told = f"work queue a ({queue.id}) is NOT_READY, was READY"
            assert caplog.messages.count(told) == 1

    run(main())
