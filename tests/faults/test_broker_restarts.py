"""A broker that is away for a second takes nothing from its workers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from runlane.protocol import codec
from runlane.protocol import messages as m

from .harness import (
    LONG,
    QUICK_TIMERS,
    Process,
    Site,
    ends_of,
    new_run,
    producer_wire,
    run,
    site,
    subscribed,
    within,
    worker_wire,
)
from .proxy import proxy

pytestmark = [pytest.mark.process, pytest.mark.timeout(300 if LONG else 60)]


async def through_a_restart(place: Site, broker: Process, end: str) -> tuple[Process, list[str]]:
    """Let 50 runs of 3 s live through one restart; return the new broker and their ids."""
    runs = [new_run("work", seconds=[3.0, 0.0]) for _ in range(50)]
    ids = [new.id for new in runs]
    async with place.client() as client:
        await client.submit(runs)
        await place.started(ids)
        since = time.monotonic()
        if end == "kill":
            await broker.kill()
        else:
            broker.terminate()
            assert await broker.wait() == 0
        gone = time.monotonic()
        await asyncio.sleep(0.4)  # with the start, about a second
        broker = await place.broker()
        back = time.monotonic()
        await within(30, ends_of(client, ids))
    print(f"{end}: down after {gone - since:.2f} s, for {back - gone:.2f} s")
    return broker, ids


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_fifty_runs_in_flight_live_through_restarts(tmp_path: Path, end: str) -> None:
    """0 redeliveries. A broker that is told to stop waits a second for reports; the next one hears the rest."""
    rounds = 10 if LONG else 2

    async def main() -> None:
        async with site(tmp_path) as place:
            broker = await place.broker()
            await place.worker(limit=50)
            ids: list[str] = []
            for _ in range(rounds):
                broker, these = await through_a_restart(place, broker, end)
                ids += these
            assert place.counts() == dict.fromkeys(ids, 1)
            rows = await place.audit(ids)
            assert {(row.attempt, row.losses) for row in rows.values()} == {(1, 0)}
            assert {tuple(row.history) for row in rows.values()} == {
                ("Scheduled", "Pending", "Running", "Completed")
            }

    run(main())


def test_a_paused_broker_does_not_take_its_own_silence_for_that_of_its_workers(tmp_path: Path) -> None:
    """A worker whose connection broke just before comes back meanwhile: its grace has not run out."""

    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS) as place, proxy(place.port) as between:
            broker = await place.broker()
            await place.worker(limit=10, url=between.url)
            runs = [new_run("work", seconds=[4.5, 0.0]) for _ in range(10)]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                await place.started(ids)
                await place.worker(limit=10, name="other")  # is to get nothing
                between.go_down()
                await asyncio.sleep(0.2)  # the broker has noticed that
                broker.pause()
                between.come_up()
                await asyncio.sleep(3)  # longer than silence and grace together
                broker.go_on()
                await within(30, ends_of(client, ids))
            assert place.counts() == dict.fromkeys(ids, 1)
            rows = await place.audit(ids)
            assert {(row.attempt, row.losses) for row in rows.values()} == {(1, 0)}

    run(main())


def test_the_grace_begins_when_the_broker_is_ready_again(tmp_path: Path) -> None:
    """However long it was away, a worker that comes late to the new broker still has its run."""
    grace = 2.0

    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS | {"resume": grace}) as place:
            broker = await place.broker()
            held = new_run("by-hand", n=1)
            async with worker_wire(place) as wire, producer_wire(place) as producer:
                session = await subscribed(wire, "by-hand")
                await producer.send(m.Submit(ref=1, runs=(codec.encode_part(held),)))
                await wire.expect(m.Runs)
                await wire.send(m.Started(id=held.id, attempt=1))
                await place.state(held.id, "Running")
                await broker.kill()

            await asyncio.sleep(grace + 0.2)
            await place.broker()
            await asyncio.sleep(grace / 2)
            async with worker_wire(place) as wire:
                again = await subscribed(wire, "by-hand", session, m.HeldRun(id=held.id, attempt=1))
                assert (again.session, again.resumed, again.lost) == (session.session, (held.id,), ())
                await wire.send(m.Finished(id=held.id, attempt=1, state=m.FinalState(type="COMPLETED")))
                await wire.expect(m.Recorded)
            rows = await place.audit([held.id])
            assert rows[held.id].history == ["Scheduled", "Pending", "Running", "Completed"]

    run(main())
