"""The auditor: every kind of difference is planted once, and is found, named, and set right."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runlane_broker.core.differences import Difference, Kind
from runlane_broker.core.registry import Held, Session
from runlane_broker.dispatch import QueuedRun
from runlane_broker.services.audit import Auditor
from runlane_broker.storage.operations.limits import SetLimit
from runlane_broker.storage.operations.sessions import EndSession

from ..support import SECOND, START, Gate, make_run, new_database, new_id, run
from .harness import Broker, Worker, broker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


def write(b: Broker, text: str, *values: object) -> None:
    """Write into the database behind the broker's back."""
    with closing(sqlite3.connect(b.path, timeout=5)) as connection, connection:
        assert connection.execute(text, values).rowcount == 1


async def audit(b: Broker) -> list[tuple[Kind, str]]:
    """What is found, after which there is nothing more to find."""
    found = await b.core.audit.run(settling=0.0)
    await b.quiet()
    assert await b.core.audit.run(settling=0.0) == []
    return [(difference.kind, difference.id) for difference in found]


async def holding(b: Broker) -> tuple[Worker, str]:
    """A worker that holds a run."""
    worker = await b.worker()
    await b.quiet()
    run_id = await b.producer().queued()
    await worker.wait_for("run")
    return worker, run_id


# --- Leases -------------------------------------------------------------------------------------------------


def test_a_lease_that_memory_has_lost_sight_of_is_given_back(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            del worker.own.held[run_id]
            b.core.dispatcher.release(worker.own.id, run_id)
            with caplog.at_level(logging.WARNING, "runlane.audit"):
                assert await audit(b) == [(Kind.NOT_HELD, run_id)]
            (record,) = caplog.records
            assert run_id in record.message
            assert worker.own.id in record.message
            assert worker.of("lease_lost") == [("lease_lost", run_id, 1)]
            await worker.wait_for("run", 2)
            assert worker.pushed == [(run_id, 1), (run_id, 2)]

    run(main())


def test_a_report_that_the_database_did_not_take_is_waited_for(path: Path) -> None:
    """The worker repeats it. Until it has, the run is leased and nobody holds it, and that is no mistake."""

    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.core.dispatcher.release(worker.own.id, run_id)
            del worker.own.held[run_id]
            b.core.store._writer.failures += 1
            assert await b.core.audit.run(settling=0.0) == []
            assert await audit(b) == [(Kind.NOT_HELD, run_id)], "at the next pass it is one"

    run(main())


def test_a_run_that_is_held_without_a_lease_is_held_no_more(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, _ = await holding(b)
            other = await b.producer().queued("elsewhere")
            worker.own.held[other] = Held(1, "k", 0.0)
            b.core.dispatcher._sessions[worker.own.id].in_flight[other] = None
            b.core.dispatcher._places.hold(other, "k", worker.own.id)
            assert await audit(b) == [(Kind.NOT_LEASED, other)]
            assert other not in worker.own.held
            assert worker.of("lease_lost") == [("lease_lost", other, 1)]

    run(main())


def test_a_lease_of_a_session_that_is_nowhere_is_given_back(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            gone = new_id()
            write(b, "UPDATE task_run SET session_id = ? WHERE id = ?", gone, run_id)
            assert set(await audit(b)) == {(Kind.NOT_LEASED, run_id), (Kind.NO_SESSION, run_id)}
            await worker.wait_for("run", 2)

    run(main())


def test_slots_and_what_is_held_are_the_same_runs(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.core.dispatcher.release(worker.own.id, run_id)
            assert await audit(b) == [(Kind.NOT_IN_FLIGHT, run_id)]
            await worker.wait_for("run", 2)
            del worker.own.held[run_id]
            found = {kind for kind, _ in await audit(b)}
            assert found == {Kind.NOT_HELD, Kind.NOT_HELD_IN_FLIGHT}
            await worker.wait_for("run", 3)

    run(main())


# --- Windows ------------------------------------------------------------------------------------------------


def test_a_due_run_that_a_complete_window_lacks_is_found(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=0)
            await b.quiet()
            run_id = await b.producer().queued()
            b.core.dispatcher.remove("k", run_id)
            assert await audit(b) == [(Kind.NOT_IN_WINDOW, run_id)]
            b.core.sessions.set_limit(worker.own, 1)
            await worker.wait_for("run")

    run(main())


def test_a_run_that_comes_due_at_this_moment_is_not_missed(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            await b.worker(limit=0)
            await b.quiet()
            await b.producer().queued(due=START + SECOND)
            b.clock.advance(1)
            assert await b.core.audit.run(settling=0.0) == []
            b.core.dispatching.due._next.clear()
            assert [kind for kind, _ in await audit(b)] == [Kind.NOT_IN_WINDOW]

    run(main())


def test_a_run_in_a_window_that_does_not_wait_is_forgotten(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            await b.worker(limit=0)
            await b.quiet()
            nobody = new_id()
            b.core.dispatcher.enqueue(QueuedRun(nobody, "k", 0, 1, START))
            assert await audit(b) == [(Kind.NOT_WAITING, nobody)]
            window = b.core.dispatcher.queue("k")
            assert window is not None
            assert nobody not in window

    run(main())


def test_a_window_that_nobody_fills_is_filled(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            await b.worker()
            await b.quiet()
            window = b.core.dispatcher.queue("k")
            assert window is not None
            window.mark_stale()  # and nobody is told
            await b.quiet()
            assert not window.complete
            assert await audit(b) == [(Kind.STALLED, "k")]
            assert window.complete

    run(main())


def test_a_run_beside_a_free_slot_is_given_out(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=0)
            run_id = await b.producer().queued()
            await b.quiet()
            b.core.dispatcher.set_limit(worker.own.id, 1)  # and nobody is told
            await b.quiet()
            assert worker.pushed_ids == []
            assert await audit(b) == [(Kind.OVERLOOKED, "k")]
            await worker.wait_for("run")
            assert worker.pushed_ids == [run_id]

    run(main())


# --- Places -------------------------------------------------------------------------------------------------


def test_a_reservation_that_nobody_answers_is_given_up(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=0)
            await b.quiet()
            run_id = await b.producer().queued()
            b.core.dispatcher.set_limit(worker.own.id, 1)
            assert len(b.core.dispatcher.assign()) == 1, "and nobody writes the lease"
            assert await audit(b) == [(Kind.UNANSWERED, run_id)]
            await worker.wait_for("run")

    run(main())


def test_a_reserved_place_without_a_reservation_is_free_again(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker()
            await b.quiet()
            b.core.dispatcher._sessions[worker.own.id].reserved = 1
            b.core.sessions.set_limit(worker.own, 1)
            run_id = await b.producer().queued()
            await b.quiet()
            assert worker.pushed == []
            assert await audit(b) == [(Kind.MISCOUNTED, worker.own.id)]
            await worker.wait_for("run")
            assert worker.pushed_ids == [run_id]

    run(main())


def test_a_slot_of_a_run_that_has_ended_is_free_again(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            await b.core.store.run(SetLimit(new_id(), "gpu", 1))
            worker.finished(run_id)
            await worker.wait_for("recorded")
            write(b, "INSERT INTO concurrency_slot SELECT id, ? FROM concurrency_limit", run_id)
            assert await audit(b) == [(Kind.IDLE_SLOT, run_id)]

    run(main())


# --- Sessions -----------------------------------------------------------------------------------------------


def test_a_session_that_memory_does_not_know_gets_its_grace(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            b.core.registry.remove(worker.own)
            b.core.dispatcher.end_session(worker.own.id)
            found = set(await audit(b))
            assert found == {(Kind.UNKNOWN_SESSION, worker.own.id), (Kind.NO_SESSION, run_id)}
            other = await b.worker()
            await other.wait_for("run")
            assert other.pushed == [(run_id, 2)]
            b.later(10.0, other)
            await b.quiet()
            assert b.core.registry.get(worker.own.id) is None

    run(main())


def test_a_session_that_the_database_does_not_know_is_closed(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker()
            await b.core.store.run(EndSession(worker.own.id, 1, "by hand", lost=False, max_losses=5))
            assert await audit(b) == [(Kind.DEAD_SESSION, worker.own.id)]
            assert worker.of("close") != []
            assert len(b.core.registry) == 0

    run(main())


# --- What is no difference ----------------------------------------------------------------------------------


def test_what_is_being_written_is_no_difference(path: Path) -> None:
    """A report, a lease and a session's end are in the writer while the auditor looks."""

    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
            leaving, _ = await holding(b)
            gate = Gate()
            b.executor.before = gate
            worker.finished(run_id)
            leaving.quit()
            b.producer().submit(make_run())
            audit_ = asyncio.create_task(b.core.audit.run(settling=0.0))
            await gate.reached()
            gate.open()
            assert await audit_ == []

    run(main())


def test_runs_of_a_session_that_may_come_back_from_the_broker_before_are_its_own(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker, run_id = await holding(b)
        async with broker(path) as b:
            assert await b.core.audit.run(settling=0.0) == []
            again = await Worker(b.core).connected(worker, [(run_id, 1)])
            assert again.answer is not None
            assert again.answer.resumed == (run_id,)

    run(main())


def test_windows_are_compared_in_turn(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runlane_broker.core.audit.KEYS", 2)

    async def main() -> None:
        async with broker(path) as b:
            keys = [f"k{i}" for i in range(5)]
            await b.worker(*keys, limit=0)
            await b.quiet()
            planted = {key: await b.producer().queued(key) for key in keys}
            for key, run_id in planted.items():
                b.core.dispatcher.remove(key, run_id)
            found = [await b.core.audit.run(settling=0.0) for _ in range(3)]
            assert [sorted(one.task_key for one in pass_) for pass_ in found] == [
                ["k0", "k1"],
                ["k2", "k3"],
                ["k4"],
            ]

    run(main())


def test_the_service_counts_by_kind(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            service = Auditor(b.core)
            assert await service.run_once() == {"differences": 0}
            b.core.registry.add(Session(new_id(), 1, "nobody"))
            assert await service.run_once() == {"differences": 1, "dead_session": 1}

    run(main())


def test_a_difference_says_which_run_and_whose() -> None:
    difference = Difference(Kind.NOT_LEASED, "run", "session", 3, "key")
    assert str(difference) == f"run (attempt 3, session session, key key): {Kind.NOT_LEASED}"
