"""What the services cost those who wait: dispatch with and without one of them at work, in turns."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

from runlane.client import Client
from runlane.settings import Settings

from ..storage.flow_runs import insert_flow_runs
from .listing import START, STATES, States, fill
from .measures import Figures, quantile
from .rig import ended, process
from .work import ARGUMENT, count_records, noop, read_records

#: Seconds between two submits: a system that is used, and not full.
GAP: Final = 0.003
#: Passes, when the work is to be done; a pass that leaves nothing over is the last.
_TO_THE_END: Final = 10_000
FLOW_RUN_ID: Final = "01234567-0000-7000-8000-000000000002"
#: Samples without the service, before each pass of it.
SAMPLES: Final = 700


async def late(runs: int, rounds: int) -> Figures:
    """Mark these runs late, once a round."""
    return await _upkeep("late", runs, rounds, (("SCHEDULED", "Scheduled", 1),))


async def retention(runs: int, rounds: int) -> Figures:
    """Delete what has ended of these runs, in passes; most have. A twentieth are of one flow run."""
    return await _upkeep("retention", runs, rounds, STATES)


async def all_retention(runs: int) -> Figures:
    """Delete all that has ended of these runs."""
    return await _upkeep("retention", runs, _TO_THE_END, STATES, SAMPLES // 7)


def _fill(path: Path, runs: int, states: States) -> None:
    fill(path, runs, states)
    insert_flow_runs(
        path, {"id": FLOW_RUN_ID, "state_type": "COMPLETED", "state_name": "Completed", "end_time": START}
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        ended = "SELECT id FROM task_run WHERE end_time IS NOT NULL ORDER BY id LIMIT ?"
        connection.execute(f"UPDATE task_run SET flow_run_id = ? WHERE id IN ({ended})", [FLOW_RUN_ID, runs // 20])


async def _upkeep(service: str, runs: int, rounds: int, states: States, samples: int = SAMPLES) -> Figures:
    with tempfile.TemporaryDirectory(prefix="runlane-bench-") as name:
        path = Path(name) / "bench.db"
        await asyncio.to_thread(_fill, path, runs, states)
        async with _bench(path, service) as bench:
            await bench.probe(lambda done: done >= 200)  # warm
            without: list[float] = []
            with_: list[float] = []
            passes: list[dict[str, Any]] = []
            while len(passes) < rounds and (not passes or passes[-1]["more"]):
                without += await bench.probe(lambda done: done >= samples)
                order = asyncio.create_task(bench.order("pass"))
                with_ += await bench.probe(lambda _, order=order: order.done())
                passes.append(await order)
                if service == "late":
                    await bench.order("reset")
        done = sum(sum(count for name, count in one["counts"].items() if name != "left") for one in passes)
        seconds = sum(one["seconds"] for one in passes)
        return {
            f"{service}: runs": done,
            f"{service}: runs/s": done / seconds,
            f"{service}: passes": len(passes),
            f"{service}: s a pass": seconds / len(passes),
            f"{service}: ms, longest statement": max(one["longest"] for one in passes),
            f"{service}: samples with": len(with_),
            f"{service}: ms p50 to first line, without": quantile(without, 0.5),
            f"{service}: ms p99 to first line, without": quantile(without, 0.99),
            f"{service}: p50, x": quantile(with_, 0.5) / quantile(without, 0.5),
            f"{service}: p99, x": quantile(with_, 0.99) / quantile(without, 0.99),
        }


class _Bench:
    def __init__(self, broker: asyncio.subprocess.Process, records: Path) -> None:
        self._broker = broker
        self._records = records
        self._index = 0

    async def order(self, what: str) -> dict[str, Any]:
        """Have the broker do something; what it says of that."""
        assert self._broker.stdin is not None
        self._broker.stdin.write(f"{what}\n".encode())
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        assert self._broker.stdout is not None
        return json.loads(await self._broker.stdout.readline())

    async def probe(self, enough: Callable[[int], bool]) -> list[float]:
        """Submit at a steady rate until it is enough; milliseconds from each submit to the task's first line."""
        submitted: dict[int, int] = {}
        while not enough(len(submitted)):
            submitted[self._index] = time.monotonic_ns()
            await noop.adelay(self._index, ARGUMENT)
            self._index += 1
            await asyncio.sleep(GAP)
        while count_records(self._records) < self._index:
            await asyncio.sleep(0.001)
        begun = read_records(self._records)
        return [(begun[index] - at) / 1e6 for index, at in submitted.items()]


@asynccontextmanager
async def _bench(path: Path, service: str) -> AsyncGenerator[_Bench]:
    records = path.with_name("records")
    records.touch()
    broker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.switched", str(path), service,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with AsyncExitStack() as stack:
            bench = _Bench(broker, records)
            url = (await bench.answer())["url"]
            await stack.enter_async_context(Client(Settings(url=url)))
            work = ("worker", "tests.benchmarks.work", "--limit", "10", "--log-level", "warning")
            told = {"RUNLANE_URL": url, "BENCH_RECORDS": str(records)}
            await stack.enter_async_context(process(path.with_name("worker.log"), work, told))
            yield bench
    finally:
        assert broker.stdin is not None
        await ended(broker, broker.stdin.close)
