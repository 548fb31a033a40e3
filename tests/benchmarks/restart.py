"""A broker that is killed with a backlog and started again: how soon it is ready, and what that costs it."""

from __future__ import annotations

import re
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from runlane.protocol import messages as m
from tests.faults.harness import Process, Site, Wire, new_run, site, worker_wire

KEYS = tuple(f"bench.restart.{n}" for n in range(10))
_BATCH = 1000
_LIMIT = 1000
_MIB = 2**20


async def restart(n: int) -> dict[str, float]:
    """Queue `n` runs of ten keys, kill -9, start again, deliver all: in order per key, each once."""
    with tempfile.TemporaryDirectory(prefix="runlane-bench-") as folder:
        empty, full = Path(folder, "empty"), Path(folder, "full")
        empty.mkdir()
        full.mkdir()
        base = await _base(empty)
        async with site(full) as place:
            broker = await place.broker()
            queueing = await _queue(place, n)
            await broker.kill()

            since = time.monotonic()
            broker = await place.launch(
                "broker", "serve", "--port", place.port, "--db", f"sqlite:///{place.database}"
            )
            await place.ready()
            ready = time.monotonic() - since
            idle = broker.rss()
            first, serving, order = await _serve(place, n)
            peak = _peak(broker)
            await place.end()
            wrong = _out_of_order(place, order)
        return {
            "queued runs/s": n / queueing,
            "s from the start of the process to /readyz": ready,
            "s from subscribe to the first run": first,
            "MiB of a broker without a backlog": base / _MIB,
            "MiB more when ready": (idle - base) / _MIB,
            "MiB more at most, until all was delivered": (peak - base) / _MIB,
            "delivered runs/s": n / serving,
            "runs not delivered": n - sum(map(len, order.values())),
            "runs out of order, or twice": wrong,
        }


async def _base(folder: Path) -> int:
    """Return the memory of a broker that has done all this once, with few runs."""
    async with site(folder) as place:
        broker = await place.broker()
        await _queue(place, 2 * _LIMIT)
        await _serve(place, 2 * _LIMIT)
        return broker.rss()


async def _queue(place: Site, n: int) -> float:
    since = time.monotonic()
    async with place.client() as client:
        for start in range(0, n, _BATCH):
            numbers = range(start, min(start + _BATCH, n))
            answers = await client.submit([new_run(KEYS[i % len(KEYS)], n=i) for i in numbers])
            assert all(answer.created for answer in answers)
    return time.monotonic() - since


async def _serve(place: Site, n: int) -> tuple[float, float, dict[str, list[str]]]:
    """Take all runs and report each; the seconds to the first and to the last, and the order of each key."""
    order: dict[str, list[str]] = defaultdict(list)
    async with worker_wire(place) as wire:
        since = time.monotonic()
        await wire.send(m.Subscribe(client_id="wire", keys=KEYS, limit=_LIMIT))
        await wire.expect(m.Subscribed)
        first, unrecorded = 0.0, n
        while unrecorded:
            for frame in await wire.frames():
                if isinstance(frame, m.Recorded):
                    unrecorded -= len(frame.runs)
                    continue
                assert isinstance(frame, m.Runs), frame
                first = first or time.monotonic() - since
                await _report(wire, frame, order)
        return first, time.monotonic() - since, order


async def _report(wire: Wire, frame: m.Runs, order: dict[str, list[str]]) -> None:
    completed = m.FinalState(type="COMPLETED")
    for run in frame.runs:
        order[run.task_key].append(run.id)
    await wire.send(*(m.Finished(id=run.id, attempt=run.attempt, state=completed) for run in frame.runs))


def _peak(broker: Process) -> int:
    """Return the most memory that a process has had, in bytes."""
    status = Path(f"/proc/{broker.pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def _out_of_order(place: Site, order: dict[str, list[str]]) -> int:
    query = "SELECT id FROM task_run WHERE task_key = ? ORDER BY priority DESC, due, id"
    return sum(
        one != other
        for key, ids in order.items()
        for one, (other,) in zip(ids, place.read(query, key), strict=False)
    )
