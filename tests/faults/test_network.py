"""Connections that break between worker and broker: reset, closed, or gone silent."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from runlane.protocol import messages as m

from .harness import QUICK_TIMERS, ends_of, new_run, run, site, until, within
from .proxy import proxy

pytestmark = pytest.mark.process


@pytest.mark.parametrize("how", ["rst", "fin", "blackhole"])
def test_cuts_shorter_than_the_grace_cost_no_execution(tmp_path: Path, how: str) -> None:
    """300 quick runs and 20 longer ones through connections that are cut at random moments."""
    chance = random.Random(how)
    # A blackhole is noticed after the silence, of either end; nothing else ends the connection. The other cuts
    # hit the handshake as often as what comes after it.
    pauses = [0.3] * 2 if how == "blackhole" else [0.3, 0.015] * 5
    cuts = len(pauses)
    timers = QUICK_TIMERS | {"resume": 5.0} if how == "blackhole" else {}

    async def main() -> None:
        async with site(tmp_path, **timers) as place, proxy(place.port) as between:
            await place.broker()
            await place.worker(limit=25, url=between.url)
            runs = [new_run("work", seconds=[0.0]) for _ in range(300)]
            runs += [new_run("work", seconds=[chance.uniform(0.5, 2.5), 0.0]) for _ in range(20)]
            chance.shuffle(runs)
            ids = [new.id for new in runs]

            async def submit() -> None:
                for i in range(0, 320, 4):
                    await client.submit(runs[i : i + 4])
                    await asyncio.sleep(chance.uniform(0, 0.12))

            async with place.client() as client:
                producer = asyncio.create_task(submit())
                for number, pause in enumerate(pauses, 1):
                    await until(lambda number=number: between.connections == number, interval=0.001)
                    await asyncio.sleep(chance.uniform(pause / 10, pause))
                    between.cut(how)
                await producer
                await within(30, ends_of(client, ids))
            await until(lambda: between.connections == cuts + 1)
            assert place.counts() == dict.fromkeys(ids, 1)
            rows = await place.audit(ids)
            assert {row.losses for row in rows.values()} == {0}
            again = [row.history for row in rows.values() if row.attempt > 1]
            print(f"{len(again)} of 320 runs were leased again: pushed, and had not arrived")
            assert all("Requeued" in history for history in again)

    run(main())


def test_what_finishes_during_an_outage_of_3_seconds_is_recorded(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place, proxy(place.port) as between:
            await place.broker()
            await place.worker(limit=25, url=between.url)
            runs = [new_run("work", seconds=[0.5 + i / 12, 0.0]) for i in range(20)]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                await place.started(ids)
                await place.worker(limit=25, name="other")  # is to get nothing
                between.go_down()
                down = asyncio.get_running_loop().time()
                await until(lambda: all(execution.ended for execution in place.executions()))
                await asyncio.sleep(down + 3 - asyncio.get_running_loop().time())
                between.come_up()
                ends = await within(3, ends_of(client, ids))  # told at once, not when reminded
            assert {bytes(end.result) for end in ends} == {b'"attempt 1"'}
            assert place.counts() == dict.fromkeys(ids, 1)
            rows = await place.audit(ids)
            assert {(row.attempt, row.losses) for row in rows.values()} == {(1, 0)}

    run(main())


@pytest.mark.parametrize("how", ["rst", "blackhole"])
def test_after_an_outage_longer_than_the_grace_each_run_counts_once(tmp_path: Path, how: str) -> None:
    """No more executions than leases were lost; the worker that was away is told, and is of use again."""

    async def main() -> None:
        async with site(tmp_path, **QUICK_TIMERS) as place, proxy(place.port) as between:
            await place.broker()
            away = await place.worker(limit=10, name="away", url=between.url)
            runs = [new_run("work", seconds=[5.0, 0.1]) for _ in range(10)]
            ids = [new.id for new in runs]
            async with place.client() as client:
                await client.submit(runs)
                await place.started(ids)
                other = await place.worker(limit=10, name="other")
                between.go_down(how)
                ends = await within(20, ends_of(client, ids))
                assert {bytes(end.result) for end in ends} == {b'"attempt 2"'}
                between.come_up()
                await away.line("0 runs resumed, 10 lost")
                other.terminate()
                assert await other.wait() == 0
                last = new_run("work", seconds=[0.0])
                await client.submit([last])
                await within(10, ends_of(client, [last.id]))
            rows = await place.audit([*ids, last.id])
            assert sum(place.counts().values()) - len(rows) == sum(row.losses for row in rows.values()) == 10
            assert all(row.history.count("Completed") == 1 for row in rows.values())

    run(main())


def test_a_submitter_whose_connection_breaks_gets_every_answer(tmp_path: Path) -> None:
    """Submits and watches through a network that resets connections: one row each, and each end is heard."""
    chance = random.Random(3)

    async def main() -> None:
        async with site(tmp_path) as place, proxy(place.port) as between:
            await place.broker()
            await place.worker(limit=25)
            runs = [new_run("work", seconds=[chance.uniform(0, 0.3)]) for _ in range(300)]
            ids = [new.id for new in runs]

            async with place.client(between.url) as client:

                async def life(new: m.NewRun) -> str:
                    await asyncio.sleep(chance.uniform(0, 2))
                    (answer,) = await client.submit([new])
                    return (await client.watch(answer.id)).id

                lives = asyncio.gather(*(life(new) for new in runs))
                for number in range(1, 4):
                    await until(lambda number=number: between.connections >= number)
                    await asyncio.sleep(chance.uniform(0, 0.4))
                    between.cut(chance.choice(["rst", "fin"]))
                assert await within(30, lives) == ids
            assert place.counts() == dict.fromkeys(ids, 1)
            await place.audit(ids)

    run(main())
