"""Workers that die, stop, drain or sleep with runs in flight."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from runlane.protocol import codec
from runlane.protocol import messages as m

from .harness import (
    QUICK_TIMERS,
    Site,
    ends_of,
    new_run,
    producer_wire,
    resume,
    run,
    site,
    subscribed,
    until,
    within,
    worker_wire,
)

pytestmark = pytest.mark.process


def test_the_runs_of_a_killed_worker_finish_at_another_within_8_seconds(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            first = await place.worker(limit=8, name="first")
            runs = [new_run("work", seconds=[60.0, 0.1]) for _ in range(8)]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                await place.started(ids)
                second = await place.worker(limit=8, name="second")
                await first.kill()
                killed = time.monotonic()
                await within(8, ends_of(client, ids))
                print(f"all 8 finished {time.monotonic() - killed:.2f} s after the kill")
            again = [execution for execution in place.executions() if execution.attempt == 2]
            assert {execution.pid for execution in again} == {second.pid}
            rows = await place.audit(ids)
            assert {(row.attempt, row.losses, row.failures) for row in rows.values()} == {(2, 1, 0)}

    run(main())


def test_a_worker_that_is_told_to_stop_finishes_what_runs_and_starts_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            first = await place.worker(limit=4, name="first")
            runs = [new_run("work", seconds=[1.5]) for _ in range(4)]
            runs += [new_run("work", seconds=[0.0]) for _ in range(20)]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                await place.started(ids[:4])
                first.terminate()
                assert await first.wait() == 0
                assert place.counts() == dict.fromkeys(ids[:4], 1)  # and nothing of the backlog
                second = await place.worker(name="second")
                await within(30, ends_of(client, ids))
            assert place.counts() == dict.fromkeys(ids, 1)
            assert {e.pid for e in place.executions() if e.run in ids[4:]} == {second.pid}
            rows = await place.audit(ids)
            assert all((row.losses, row.failures) == (0, 0) for row in rows.values())
            assert {rows[run_id].attempt for run_id in ids[:4]} == {1}

    run(main())


def test_a_worker_that_is_told_twice_gives_back_what_runs_at_no_cost(tmp_path: Path) -> None:
    """Nothing is lost, and neither a failure nor a loss is counted: the run has no retries, and completes."""

    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            first = await place.worker(limit=4, name="first")
            runs = [new_run("work", seconds=[60.0, 0.0]) for _ in range(4)]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                await place.started(ids)
                second = await place.worker(name="second")
                first.terminate()
                await first.line("draining")
                first.terminate()
                told = time.monotonic()
                await within(5, ends_of(client, ids))
                print(f"all 4 finished elsewhere {time.monotonic() - told:.2f} s after the second signal")
                assert await first.wait() == 130
            again = [execution for execution in place.executions() if execution.attempt == 2]
            assert {execution.pid for execution in again} == {second.pid}
            rows = await place.audit(ids)
            assert {(row.attempt, row.losses, row.failures) for row in rows.values()} == {(2, 0, 0)}

    run(main())


def test_a_worker_that_slept_through_its_lease_completes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS) as place:
            await place.broker()
            sleeper = await place.worker(limit=5, name="sleeper")
            runs = [new_run("work", seconds=[2.0, 0.1]) for _ in range(5)]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                await place.started(ids)
                other = await place.worker(limit=5, name="other")
                sleeper.pause()
                paused = time.monotonic()
                ends = await within(20, ends_of(client, ids))
                print(f"taken over {time.monotonic() - paused:.2f} s after the pause")
                assert {bytes(end.result) for end in ends} == {b'"attempt 2"'}
                sleeper.go_on()
                await sleeper.line(r"0 runs resumed, 5 lost")

                other.terminate()
                assert await other.wait() == 0
                last = new_run("work", seconds=[0.0])
                await client.submit([last])
                await within(20, ends_of(client, [last.id]))  # the sleeper is of use again
            assert place.counts() == {**dict.fromkeys(ids, 2), last.id: 1}
            rows = await place.audit([*ids, last.id])
            assert {(rows[run_id].attempt, rows[run_id].losses) for run_id in ids} == {(2, 1)}
            assert all(rows[run_id].history.count("Completed") == 1 for run_id in ids)

    run(main())


async def submit(place: Site, new: m.NewRun) -> None:
    async with producer_wire(place) as producer:
        await producer.send(m.Submit(ref=1, runs=(codec.encode_part(new),)))
        await producer.expect(m.Submitted)


def completed(new: m.NewRun, attempt: int, result: bytes) -> m.Finished:
    state = m.FinalState(type="COMPLETED")
    return m.Finished(id=new.id, attempt=attempt, state=state, result=msgspec.Raw(result))


def test_a_late_report_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """Frame by frame: a silent session ends; what it says afterwards is `lease_lost`, also while another runs."""

    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS) as place:
            await place.broker()
            new = new_run("by-hand", n=1)
            async with worker_wire(place) as silent:
                session = await subscribed(silent, "by-hand")
                await submit(place, new)
                await silent.expect(m.Runs)
                await silent.send(m.Started(id=new.id, attempt=1))
                assert await within(5, silent.closed()) == 4408

            async with worker_wire(place) as holder, worker_wire(place) as back:
                await subscribed(holder, "by-hand")
                (leased,) = (await holder.expect(m.Runs)).runs
                assert (leased.id, leased.attempt) == (new.id, 2)
                await holder.send(m.Started(id=new.id, attempt=2))
                await place.state(new.id, "Running")

                again = await subscribed(back, "by-hand", session, m.HeldRun(id=new.id, attempt=1))
                assert again.session != session.session
                assert again.lost == (m.HeldRun(id=new.id, attempt=1),)
                lost = m.LeaseLost(id=new.id, attempt=1)
                for report in (m.Started(id=new.id, attempt=1), completed(new, 1, b"1"), completed(new, 1, b"1")):
                    await back.send(report)
                    assert await back.expect(m.LeaseLost) == lost
                await back.send(completed(new, 2, b"1"))  # the attempt alone does not do either
                assert await back.expect(m.LeaseLost) == m.LeaseLost(id=new.id, attempt=2)
                await holder.send(completed(new, 1, b"1"))  # nor the session alone
                assert await holder.expect(m.LeaseLost) == lost
                assert place.read("SELECT state_name FROM task_run") == [("Running",)]

                await holder.send(completed(new, 2, b"2"))
                await holder.expect(m.Recorded)
                await back.send(completed(new, 1, b"1"))
                assert await back.expect(m.LeaseLost) == lost
            assert place.read("SELECT result FROM task_run_payload") == [(b"2",)]
            rows = await place.audit([new.id])
            history = ["Scheduled", "Pending", "Running", "Requeued", "Pending", "Running", "Completed"]
            assert rows[new.id].history == history
            assert (rows[new.id].attempt, rows[new.id].losses) == (2, 1)

    run(main())


def test_a_report_whose_verdict_was_lost_has_the_same_verdict_after_a_kill(tmp_path: Path) -> None:
    """The broker dies after the commit of a report and before the worker hears of it."""

    async def main() -> None:
        async with site(tmp_path) as place:
            broker = await place.broker()
            new = new_run("by-hand", n=1)
            async with worker_wire(place) as wire:
                session = await subscribed(wire, "by-hand")
                await submit(place, new)
                await wire.expect(m.Runs)
                await wire.send(completed(new, 1, b"1"))
                await place.state(new.id, "Completed")
                await broker.kill()

            await place.broker()
            async with worker_wire(place) as wire:
                again = await subscribed(wire, "by-hand", session, m.HeldRun(id=new.id, attempt=1))
                assert (again.session, again.resumed, again.lost) == (session.session, (new.id,), ())
                for _ in range(2):
                    await wire.send(completed(new, 1, b"1"))
                    verdict = m.Recorded(runs=(m.RecordedRun(id=new.id, attempt=1),))
                    assert await wire.expect(m.Recorded) == verdict
            rows = await place.audit([new.id])
            assert rows[new.id].history == ["Scheduled", "Pending", "Completed"]

    run(main())


def test_a_worker_that_quits_gives_back_at_once_what_it_holds(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            new = new_run("work", seconds=[0.0])
            async with worker_wire(place) as wire:
                await subscribed(wire, "work")
                await submit(place, new)
                await wire.expect(m.Runs)
                await wire.send(m.Started(id=new.id, attempt=1), m.Quit())
                assert await wire.closed() == 1000
            await place.state(new.id, "Requeued", seconds=2)
            await place.worker()
            await place.state(new.id, "Completed")
            rows = await place.audit([new.id])
            assert (rows[new.id].attempt, rows[new.id].losses, rows[new.id].failures) == (2, 0, 0)

    run(main())


def test_a_run_that_takes_its_workers_down_is_parked(tmp_path: Path) -> None:
    """Five sessions die with it; the sixth is not tried, and the others' runs are done meanwhile."""

    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS) as place:
            await place.broker()
            poison, good = new_run("work", seconds=[60.0]), new_run("work", seconds=[0.0])
            async with place.client() as client:
                await client.submit([poison])
                for attempt in range(1, 6):
                    worker = await place.worker(limit=2, name=f"worker-{attempt}")
                    await until(lambda attempt=attempt: any(e.attempt == attempt for e in place.executions()), 10)
                    await worker.kill()
                (end,) = await within(10, ends_of(client, [poison.id]))
                assert (end.state.type, end.state.name) == ("CRASHED", "Parked")
                await place.worker(limit=2)
                await client.submit([good])
                await within(10, ends_of(client, [good.id]))
            assert place.counts() == {poison.id: 5, good.id: 1}
            rows = await place.audit([poison.id, good.id], {"CRASHED": 1, "COMPLETED": 1})
            assert (rows[poison.id].attempt, rows[poison.id].losses) == (5, 5)

    run(main())


def test_a_resume_whose_answer_was_lost_can_be_repeated(tmp_path: Path) -> None:
    """The connection breaks after the commit of a resume and before the worker hears of it: it asks again."""

    async def main() -> None:
        async with site(tmp_path) as place:
            await place.broker()
            new = new_run("by-hand", n=1)
            held = m.HeldRun(id=new.id, attempt=1)
            async with worker_wire(place) as wire:
                session = await subscribed(wire, "by-hand")
                await submit(place, new)
                await wire.expect(m.Runs)
                await wire.send(m.Started(id=new.id, attempt=1))
            for epoch in (2, 3):
                async with worker_wire(place) as wire:
                    await resume(wire, "by-hand", session, held)
                    await until(lambda epoch=epoch: place.read("SELECT epoch FROM worker_session") == [(epoch,)])
                    wire.abort()
            async with worker_wire(place) as wire:
                again = await subscribed(wire, "by-hand", session, held)
                assert (again.session, again.resumed, again.lost) == (session.session, (new.id,), ())
                await wire.send(completed(new, 1, b"1"))
                await wire.expect(m.Recorded)
            rows = await place.audit([new.id])
            assert (rows[new.id].attempt, rows[new.id].losses) == (1, 0)

    run(main())
