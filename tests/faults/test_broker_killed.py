"""kill -9 of the broker: what it acknowledged is there, what it did not is there once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest

from runlane import Client
from runlane.protocol import codec
from runlane.protocol import messages as m

from .harness import LONG, ends_of, new_run, producer_wire, run, site, until, within

pytestmark = pytest.mark.process


def test_what_was_acknowledged_is_executed_after_a_kill_and_nothing_twice(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            broker = await place.broker()
            runs = [new_run("work", seconds=[0]) for _ in range(1000)]
            async with place.client() as client:
                answers = await client.submit(runs)
            await broker.kill()
            assert [(answer.id, answer.created) for answer in answers] == [(run.id, True) for run in runs]

            await place.broker()
            await place.worker(limit=100)
            async with place.client() as client:
                await within(30, ends_of(client, [run.id for run in runs]))
            assert place.counts() == dict.fromkeys([run.id for run in runs], 1)
            rows = await place.audit([run.id for run in runs])
            assert {row.attempt for row in rows.values()} == {1}

    run(main())


@pytest.mark.parametrize("seed", range(1, 5) if LONG else [1])
def test_a_stream_of_submits_through_kills_makes_each_run_once(tmp_path: Path, seed: int) -> None:
    """The client sends again, with the same ids, whatever had no answer when the broker died."""
    chance = random.Random(seed)

    async def main() -> None:
        async with site(tmp_path) as place:
            broker = await place.broker()
            runs = [new_run("work", seconds=[0]) for _ in range(1000)]
            created: dict[str, bool] = {}

            async def submit(client: Client, batches: Iterator[list[m.NewRun]]) -> None:
                for batch in batches:
                    created.update({answer.id: answer.created for answer in await client.submit(batch)})
                    await asyncio.sleep(chance.uniform(0, 0.01))

            def is_time_to_kill(goal: int) -> bool:
                ((there,),) = place.read("SELECT count(*) FROM task_run")
                return there >= goal and there > len(created)  # some have been committed, and not answered

            for begin in range(0, 1000, 250):
                goal = begin + chance.randrange(20, 200)
                batches = iter([runs[i : i + 10] for i in range(begin, begin + 250, 10)])
                async with place.client() as client:
                    producers = asyncio.gather(*(submit(client, batches) for _ in range(5)))
                    await until(partial(is_time_to_kill, goal), interval=chance.uniform(0, 0.002))
                    await broker.kill()
                    assert {run_id for (run_id,) in place.read("SELECT id FROM task_run")} >= created.keys()
                    broker = await place.broker()
                    await within(30, producers)

            assert created.keys() == {run.id for run in runs}
            again = list(created.values()).count(False)
            print(f"{again} of 1000 had been committed before a kill, without an answer")
            await place.audit([run.id for run in runs], {"SCHEDULED": 1000})

    run(main())


def test_a_kill_between_commit_and_reply_leaves_one_row(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            broker = await place.broker()
            new = new_run("work", seconds=[0])
            frame = m.Submit(ref=7, runs=(codec.encode_part(new),))
            async with producer_wire(place) as wire:
                await wire.send(frame)
                await until(lambda: place.read("SELECT 1 FROM task_run WHERE id = ?", new.id))
                await broker.kill()  # nobody has read the reply

            await place.broker()
            async with producer_wire(place) as wire:
                for _ in range(2):
                    await wire.send(frame)
                    answer = await wire.expect(m.Submitted)
                    assert answer == m.Submitted(ref=7, runs=(m.SubmittedRun(id=new.id, created=False),))
                other = msgspec.structs.replace(new, parameters=msgspec.Raw(b"{}"))
                await wire.send(m.Submit(ref=8, runs=(codec.encode_part(other),)))
                (refused,) = (await wire.expect(m.Submitted)).runs
                assert refused.error is not None
                assert refused.error.code == "id_conflict"
            await place.audit([new.id], {"SCHEDULED": 1})

    run(main())


def test_a_scheduled_run_is_executed_once_and_not_early_through_a_kill(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            broker = await place.broker()
            await place.worker()
            due = datetime.now(UTC) + timedelta(seconds=1.5)
            new = msgspec.structs.replace(new_run("work", seconds=[0]), scheduled_time=due)
            async with place.client() as client:
                await client.submit([new])
                await broker.kill()
                await place.broker()
                ready_at = time.time()
                await within(30, ends_of(client, [new.id]))
            (execution,) = place.executions()
            assert due.timestamp() <= execution.started_at
            late = execution.started_at - max(due.timestamp(), ready_at)
            print(f"started {late * 1000:.0f} ms after it was due (or after the broker was ready)")
            assert late < 1.5
            rows = await place.audit([new.id])
            assert rows[new.id].history == ["Scheduled", "Pending", "Running", "Completed"]

    run(main())


def test_a_second_broker_on_the_same_file_waits_for_the_end_of_the_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            first = await place.broker()
            arguments = ("serve", "--port", 0, "--db", f"sqlite:///{place.database}")
            second = await place.launch("second", *arguments)
            assert await second.wait() == 1
            assert second.log.strip() == f"runlane: another broker is using the database {place.database}"
            assert first.is_running
            await place.ready()

            await first.kill()
            third = await place.launch("third", *arguments)
            await third.line("listening on")
            await place.audit([], {})

    run(main())
