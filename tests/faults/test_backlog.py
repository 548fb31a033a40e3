"""A backlog that nobody serves: it fails no submit, fills no memory, and delays no start."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runlane.protocol import messages as m

from .harness import LONG, new_run, run, site, worker_wire

pytestmark = [pytest.mark.process, pytest.mark.timeout(600 if LONG else 60)]

RUNS = 100_000 if LONG else 10_000
BATCH = 1000


def test_a_backlog_without_a_worker_waits_on_the_disk_and_is_served_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as place:
            broker = await place.broker()
            before = broker.rss()
            ids: list[str] = []
            since = time.monotonic()
            async with place.client() as client:
                for _ in range(0, RUNS, BATCH):
                    answers = await client.submit([new_run("nobody", n=1) for _ in range(BATCH)])
                    assert all(answer.created for answer in answers)
                    ids += [answer.id for answer in answers]
            submitting = time.monotonic() - since
            growth = broker.rss() - before
            await broker.kill()

            since = time.monotonic()
            broker = await place.launch(
                "broker", "serve", "--port", place.port, "--db", f"sqlite:///{place.database}"
            )
            await place.ready()
            ready = time.monotonic() - since
            after = broker.rss()

            since = time.monotonic()
            served: list[str] = []
            async with worker_wire(place) as wire:
                await wire.send(m.Subscribe(client_id="wire", keys=("nobody",), limit=100))
                await wire.expect(m.Subscribed)
                unrecorded = RUNS
                while unrecorded:
                    for frame in await wire.frames():
                        if isinstance(frame, m.Recorded):
                            unrecorded -= len(frame.runs)
                            continue
                        assert isinstance(frame, m.Runs), frame
                        served += [pushed.id for pushed in frame.runs]
                        await wire.send(
                            *(
                                m.Finished(id=pushed.id, attempt=1, state=m.FinalState(type="COMPLETED"))
                                for pushed in frame.runs
                            )
                        )
            serving = time.monotonic() - since
            print(
                f"{RUNS} runs: submitted in {submitting:.1f} s, RSS {before >> 20} MiB + {growth / 2**20:.1f} MiB;"
                f" after kill -9 ready in {ready:.2f} s with {after >> 20} MiB;"
                f" served in {serving:.1f} s, then {broker.rss() >> 20} MiB"
            )
            assert growth < 64 * 2**20
            if LONG:  # on a machine that has nothing else to do
                assert ready < 2.0
            expected = [run_id for (run_id,) in place.read("SELECT id FROM task_run ORDER BY due, id")]
            assert served == expected
            rows = await place.audit(ids)
            assert {row.attempt for row in rows.values()} == {1}

    run(main())
