"""What happens while the database cannot be written or read, and when the broker goes down."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runlane.protocol.states import StateType
from runlane_broker.core import dispatching
from runlane_broker.errors import Overloaded, StoreUnavailable
from runlane_broker.storage.operations.base import Operation
from runlane_broker.storage.operations.leasing import FinishRun, LeaseRuns, ReleaseRuns, StartRun
from runlane_broker.storage.operations.sessions import EndSession, OpenSession, ResumeSession
from runlane_broker.storage.records import Refill

from ..support import PATIENCE, Broken, Gate, new_database, run
from .harness import Broker, Worker, broker

S = StateType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "RETRY_SECONDS", 0.005)


class Times:
    """Fails operations of some kinds so many times."""

    def __init__(self, count: int, *kinds: type[Operation[Any]]) -> None:
        self.left = count
        self.kinds = kinds

    def __call__(self, operation: Operation[Any]) -> bool:
        fails = self.left > 0 and isinstance(operation, self.kinds)
        self.left -= fails
        return fails


async def holding(b: Broker) -> tuple[Worker, str]:
    worker = await b.worker()
    await b.quiet()
    run_id = await b.producer().queued()
    await worker.wait_for("run")
    return worker, run_id


def test_reports_wait_for_the_database_and_are_written_once(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            producer = b.producer()
            await producer.watch(run_id)
            b.executor.fails = Times(6, StartRun, FinishRun)
            worker.started(run_id)
            worker.finished(run_id)
            await worker.wait_for("recorded")
            await worker.wait_for("settled", 2)
            await b.quiet()
            assert len(producer.of("finished")) == 1
            assert worker.of("lease_lost") == [], "the start that came after the end is nothing to be told of"
            assert (await b.names(run_id))[-1] == "Completed"
            assert (await b.names(run_id)).count("Completed") == 1

    run(main())


def test_a_report_that_is_not_written_yet_is_not_settled_and_frees_its_slot_all_the_same(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            next_ = await b.producer().queued()
            b.executor.fails = lambda operation: isinstance(operation, FinishRun)
            worker.finished(run_id)
            await worker.wait_for("run", 2)
            assert worker.pushed_ids == [run_id, next_]
            assert worker.of("recorded", "settled") == []
            b.executor.fails = lambda _: False
            await worker.wait_for("recorded")

    run(main())


def test_leases_that_cannot_be_written_lose_neither_run_nor_slot(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            ids = [await producer.queued() for _ in range(4)]
            b.executor.fails = Times(5, LeaseRuns)
            worker = await b.worker(limit=2)
            await worker.wait_for("run", 2)
            await b.quiet()
            assert worker.pushed == [(ids[0], 1), (ids[1], 1)]
            assert b.core.dispatcher.free_slots(worker.own.id) == 0
            worker.finished(ids[0])
            worker.finished(ids[1])
            await worker.wait_for("run", 4)
            assert worker.pushed_ids == ids

    run(main())


def test_the_end_of_a_session_that_quit_is_written_as_soon_as_it_can_be(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.executor.fails = Times(3, EndSession)
            b.core.sessions.quit(worker.own)
            other = await b.worker()
            await other.wait_for("run")
            assert other.pushed == [(run_id, 2)]
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_a_session_whose_loss_could_not_be_written_has_another_grace(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            worker.disconnect()
            b.executor.fails = Times(1, EndSession)
            b.core.sessions.lose(worker.own)
            await b.quiet()
            assert b.core.registry.get(worker.own.id) is not None
            b.executor.fails = lambda _: False
            await b.core.beat()  # the database is back
            other = await b.worker()
            b.later(4.5)
            await b.quiet()
            assert other.pushed == []
            b.later(1.0)
            await other.wait_for("run")
            assert other.pushed == [(run_id, 2)]
            assert (await b.run(run_id)).losses == 1

    run(main())


def test_nothing_is_taken_from_a_session_whose_loss_could_not_be_written(path: Path) -> None:
    """It is as one that the broker before left behind; the auditor finds nothing wrong with it."""

    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            worker.disconnect()
            b.executor.fails = Times(1, EndSession)
            b.core.sessions.lose(worker.own)
            await b.quiet()
            b.executor.fails = lambda _: False
            await b.core.beat()
            await b.core.audit.run(settling=0)  # notes that the database was away
            assert await b.core.audit.run(settling=0) == []
            second = await Worker(b.core).connected(worker, [(run_id, 1)])
            second.finished(run_id)
            await second.wait_for("recorded")
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_no_grace_runs_out_while_the_database_is_away(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            worker.disconnect()
            b.executor.fails = lambda _: True
            with pytest.raises(StoreUnavailable):
                await b.core.beat()
            b.later(60.0)
            b.executor.fails = lambda _: False
            await b.core.beat()
            b.later(4.5)
            second = await Worker(b.core).connected(worker, [(run_id, 1)])
            assert second.own.epoch == 2
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_a_session_that_resumes_before_its_end_is_written_lives(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            worker.disconnect()
            b.executor.fails = lambda operation: isinstance(operation, EndSession)
            b.core.sessions.lose(worker.own)
            second = await Worker(b.core).connected(worker, [(run_id, 1)])
            b.executor.fails = lambda _: False
            b.core.dispatching.persist(EndSession(worker.own.id, 1, "lost", True, 5), lambda _: None)
            await b.quiet()
            assert second.own.epoch == 2
            second.finished(run_id)
            await second.wait_for("recorded")
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_a_run_given_back_because_its_connection_broke_is_given_back_however_long_it_takes(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, producer = await b.worker(limit=0), b.producer()
            run_id = await producer.queued()
            await b.quiet()
            gate = b.executor.after = Gate()
            b.core.sessions.set_limit(worker.own, 1)
            await gate.reached()
            worker.disconnect()
            b.executor.fails = Times(3, ReleaseRuns)
            gate.open()
            other = await b.worker()
            await other.wait_for("run")
            assert other.pushed == [(run_id, 2)]
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_what_is_given_back_is_over_though_the_database_does_not_know_it_yet(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.core.sessions.set_limit(worker.own, 0)
            b.executor.fails = lambda operation: isinstance(operation, ReleaseRuns)
            worker.released(run_id)
            worker.started(run_id)
            worker.finished(run_id)
            await worker.wait_for("lease_lost", 2)
            await worker.wait_for("settled", 2)
            assert await b.names(run_id) == ["Scheduled", "Pending"]
            b.executor.fails = lambda _: False
            await worker.wait_for("settled", 3)
            assert await b.names(run_id) == ["Scheduled", "Pending", "Requeued"]
            b.core.sessions.set_limit(worker.own, 1)
            await worker.wait_for("run", 2)
            worker.finished(run_id, attempt=2)
            await worker.wait_for("recorded")
            assert worker.own.given_back == set()

    run(main())


def test_a_run_is_put_off_once_that_is_written(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.executor.fails = lambda operation: isinstance(operation, ReleaseRuns)
            worker.released(run_id, delay=60.0)
            await b.quiet()
            assert worker.of("recorded") == []
            b.executor.fails = lambda _: False
            await worker.wait_for("recorded")
            assert await b.names(run_id) == ["Scheduled", "Pending", "Requeued"]
            worker.released(run_id, delay=60.0)  # the verdict went missing, say
            await worker.wait_for("lease_lost")
            worker.released(run_id)  # nobody waits for a word on this
            await worker.wait_for("settled", 3)
            assert len(worker.of("recorded")) == len(worker.of("lease_lost")) == 1
            assert await b.names(run_id) == ["Scheduled", "Pending", "Requeued"]

    run(main())


def test_a_worker_that_came_back_too_early_to_know_is_given_the_run_again(path: Path) -> None:
    """It was deaf; its lease is over, but that was written after its resumption, which could not know."""

    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.executor.fails = Times(1, ReleaseRuns)
            b.clock.advance(60.0)
            b.core.sessions.deaf(worker.own)
            worker.disconnect()
            second = await Worker(b.core).connected(worker, [(run_id, 1)])
            async with asyncio.timeout(PATIENCE):
                while await b.names(run_id) != ["Scheduled", "Pending", "Requeued"]:
                    await asyncio.sleep(0)
            second.started(run_id)
            await second.wait_for("lease_lost")
            await second.wait_for("run")
            assert second.pushed == [(run_id, 2)]

    run(main())


def test_who_puts_a_run_off_twice_is_told_that_it_is_put_off(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.executor.fails = Times(1, ReleaseRuns)
            worker.released(run_id, delay=60.0)
            await b.quiet()
            # Without a verdict it says so again, and is heard before the first word is written.
            worker.released(run_id, delay=60.0)
            await worker.wait_for("settled", 2)
            assert worker.of("lease_lost") == []
            assert len(worker.of("recorded")) == 2
            assert await b.names(run_id) == ["Scheduled", "Pending", "Requeued"]

    run(main())


def test_what_has_ended_is_not_given_back_though_the_database_does_not_know_it_yet(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.executor.fails = lambda operation: isinstance(operation, FinishRun)
            worker.finished(run_id)
            worker.finished(run_id)  # it may repeat that, and the first of them to be written is not the last word
            worker.released(run_id)
            await worker.wait_for("settled")
            await b.quiet()
            assert await b.names(run_id) == ["Scheduled", "Pending"]
            b.executor.fails = lambda _: False
            await worker.wait_for("recorded", 2)
            assert await b.names(run_id) == ["Scheduled", "Pending", "Completed"]
            assert worker.of("lease_lost") == []
            assert not worker.own.finished

    run(main())


@pytest.mark.parametrize("kind", [OpenSession, ResumeSession])
def test_a_subscription_that_cannot_be_written_is_refused(path: Path, kind: type[Operation[Any]]) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            worker.disconnect()
            b.executor.fails = lambda operation: isinstance(operation, kind)
            second = Worker(b.core)
            second.subscribe(worker if kind is ResumeSession else None, [(run_id, 1)])
            _, reason = await second.wait_for("refused")
            assert isinstance(reason, StoreUnavailable)
            b.executor.fails = lambda _: False
            third = await Worker(b.core).connected(worker, [(run_id, 1)])
            assert third.answer is not None
            assert third.answer.resumed == (run_id,)

    run(main())


def test_a_window_that_cannot_be_read_is_read_again(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            run_id = await b.producer().queued()
            read = b.core.store.refill
            failures = iter([True] * 3)

            async def refill(*args: Any) -> Refill:
                if next(failures, False):
                    raise StoreUnavailable("not now")
                return await read(*args)

            b.core.store.refill = refill  # type: ignore[method-assign]
            worker = await b.worker()
            await worker.wait_for("run")
            assert worker.pushed == [(run_id, 1)]

    run(main())


def test_a_report_that_breaks_a_rule_of_the_database_is_dropped_and_not_tried_for_ever(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            outcomes: list[Any] = []
            b.core.dispatching.persist(Broken(), outcomes.append)
            await b.quiet()
            assert [type(outcome) for outcome in outcomes] == [ValueError]
            worker.finished(run_id)
            await worker.wait_for("recorded")

    run(main())


# --- Going down ---------------------------------------------------------------------------------------------


def test_a_draining_broker_takes_reports_and_gives_nothing_more(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            waiting = await b.producer().queued()
            assert b.core.ready
            b.core.drain()
            assert not b.core.ready
            assert len(worker.of("draining")) == 1
            with pytest.raises(Overloaded, match="going down"):
                b.core.submissions.check_load()
            assert b.core.holds_runs()
            worker.finished(run_id)
            await worker.wait_for("recorded")
            await b.quiet()
            assert not b.core.holds_runs()
            assert worker.pushed_ids == [run_id]
            assert await b.state(waiting) == (S.SCHEDULED, "Scheduled")

    run(main())


@pytest.mark.parametrize("goes", ["quits", "is lost"])
def test_who_goes_without_waiting_for_a_verdict_has_reported_all_the_same(path: Path, goes: str) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.executor.fails = Times(2, FinishRun)
            worker.finished(run_id)
            session = worker.own
            if goes == "quits":
                worker.quit()
            else:
                worker.disconnect()
                b.core.sessions.lose(session)
            await worker.wait_for("settled")
            await b.quiet()
            assert await b.names(run_id) == ["Scheduled", "Pending", "Completed"]
            assert not (await b.core.store.facts.leases()).sessions

    run(main())


def test_who_quits_while_the_broker_drains_and_cannot_write_has_quit_and_is_not_lost(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.executor.fails = Times(3, EndSession)
            b.core.drain()
            worker.quit()
            async with asyncio.timeout(PATIENCE):
                while await b.names(run_id) != ["Scheduled", "Pending", "Requeued"]:
                    await asyncio.sleep(0)
            assert (await b.run(run_id)).losses == 0

    run(main())


def test_a_lease_under_way_when_the_broker_drains_still_arrives(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=0)
            run_id = await b.producer().queued()
            await b.quiet()
            gate = b.executor.before = Gate()
            b.core.sessions.set_limit(worker.own, 1)
            await gate.reached()
            b.core.drain()
            gate.open()
            await worker.wait_for("run")
            worker.finished(run_id)
            await worker.wait_for("recorded")

    run(main())


def test_closing_writes_what_waits(path: Path) -> None:
    reported: list[str] = []

    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            gate = b.executor.before = Gate()
            worker.finished(run_id)
            await gate.reached()
            gate.open()
            b.core.drain()
            await b.core.close()
            assert worker.of("recorded") == [("recorded", run_id, 1, False)]
            reported.append(run_id)

    async def after() -> None:
        async with broker(path) as b:
            assert (await b.run(reported[0])).state.type is S.COMPLETED

    run(main())
    run(after())


def test_a_broker_that_goes_down_without_its_database_does_not_hang(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.executor.fails = lambda _: True
            worker.finished(run_id)
            b.core.drain()
            await b.core.close()
            assert worker.of("recorded") == []

    run(main())
