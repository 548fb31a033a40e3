"""What is measured, one function each. Each returns one repeat's figures by name."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from runlane.client import current_client
from runlane.protocol.codec import encode
from runlane.protocol.ids import uuid7
from runlane.protocol.messages import SUBPROTOCOL, Auth, NewRun, Subscribe

from .rig import cpu_seconds, memory_bytes, rig
from .work import ARGUMENT, noop, read_records

Figures = dict[str, float]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


async def sequential(n: int) -> Figures:
    """Submits, each awaited before the next; a worker executes them meanwhile."""
    async with rig(limit=10) as it:
        start = time.perf_counter()
        for i in range(n):
            await noop.adelay(i, ARGUMENT)
        seconds = time.perf_counter() - start
        await it.begun(n)
        return {"submits/s, one by one": n / seconds}


async def pipelined(n: int, limit: int) -> Figures:
    """Submits, all at once; from the first submit to the last task's first line."""
    async with rig(limit=limit) as it:
        cpu = cpu_seconds(it.broker_pid), cpu_seconds(it.worker_pid), time.process_time()
        start = time.monotonic_ns()
        await asyncio.gather(*(noop.adelay(i, ARGUMENT) for i in range(n)))
        submitted = time.monotonic_ns()
        await it.begun(n)
        records = read_records(it.records)
        assert len(records) == n, "every run began once"
        name = f"limit {limit}"
        return {
            f"runs/s end to end, {name}": n / ((max(records.values()) - start) / 1e9),
            f"submits/s pipelined, {name}": n / ((submitted - start) / 1e9),
            f"broker CPU µs a run, {name}": (cpu_seconds(it.broker_pid) - cpu[0]) / n * 1e6,
            f"worker CPU µs a run, {name}": (cpu_seconds(it.worker_pid) - cpu[1]) / n * 1e6,
            f"producer CPU µs a run, {name}": (time.process_time() - cpu[2]) / n * 1e6,
        }


async def latency(n: int) -> Figures:
    """From the submit to the task's first line, one run at a time on an idle system."""
    async with rig(limit=10) as it:
        waits: list[float] = []
        for i in range(n):
            start = time.monotonic_ns()
            await noop.adelay(i, ARGUMENT)
            await it.begun(i + 1)
            waits.append((read_records(it.records)[i] - start) / 1e6)
            await asyncio.sleep(0.002)
        return {f"submit to first line, ms p{p}": quantile(waits, p / 100) for p in (50, 95, 99)}


async def memory_of_sockets(n: int) -> Figures:
    """Bytes of the broker per idle worker socket."""
    async with rig() as it:
        few = await _subscribe(it.url, 20)  # what is allocated once is not a socket's
        before = memory_bytes(it.broker_pid)
        many = await _subscribe(it.url, n)
        grown = memory_bytes(it.broker_pid) - before
        await asyncio.gather(*(socket.close() for socket in (*few, *many)))
        return {"KiB an idle worker socket": grown / n / 1024}


async def idle(workers: int, seconds: float) -> Figures:
    """CPU and transactions of a broker with connected workers and nothing to do."""
    async with rig() as it:
        sockets = await _subscribe(it.url, workers)
        await asyncio.sleep(1)
        cpu, commits = cpu_seconds(it.broker_pid), it.commits()
        await asyncio.sleep(seconds)
        used = (cpu_seconds(it.broker_pid) - cpu) / seconds * 100
        per_second = (it.commits() - commits) / seconds
        await asyncio.gather(*(socket.close() for socket in sockets))
        name = f"{workers} idle workers"
        return {f"% of a core, {name}": used, f"transactions/s, {name}": per_second}


async def backlog(n: int, samples: int) -> Figures:
    """What a backlog of a key without a worker costs: memory, and another key's submits."""
    async with rig(limit=10) as it:
        await _probe(samples)  # warm
        before = await _probe(samples)
        memory = memory_bytes(it.broker_pid)
        client = current_client()
        start = time.perf_counter()
        for _ in range(n // 1000):
            await client.submit(_run("bench.nobody") for _ in range(1000))
        seconds = time.perf_counter() - start
        grown = memory_bytes(it.broker_pid) - memory
        after = await _probe(samples)
        return {
            f"MiB for a backlog of {n}": grown / 2**20,
            "backlog submits/s": n / seconds,
            "p50 of another key's submits, x": quantile(after, 0.5) / quantile(before, 0.5),
            "p99 of another key's submits, x": quantile(after, 0.99) / quantile(before, 0.99),
        }


async def due(rate: int, seconds: float) -> Figures:
    """How late runs start that are scheduled for later, so many a second."""
    async with rig(limit=100) as it:
        n = int(rate * seconds)
        first = datetime.now(UTC) + timedelta(seconds=2 + n / 10_000)
        offset = time.monotonic_ns() - time.time_ns()
        times = [first + timedelta(seconds=i / rate) for i in range(n)]
        client = current_client()
        await client.submit(_run("bench.noop", i, when) for i, when in enumerate(times))
        await it.begun(n)
        records = read_records(it.records)
        late = [(records[i] - offset) / 1e6 - when.timestamp() * 1e3 for i, when in enumerate(times)]
        assert min(late) > -1, "nothing starts early"
        return {f"ms late at {rate} due a second, p50": quantile(late, 0.5), "p99": quantile(late, 0.99)}


async def _probe(samples: int) -> list[float]:
    waits: list[float] = []
    for i in range(samples):
        start = time.perf_counter()
        await noop.adelay(i, ARGUMENT)
        waits.append(time.perf_counter() - start)
    return waits


def _run(key: str, index: int = 0, when: datetime | None = None) -> NewRun:
    parameters = msgspec.Raw(msgspec.json.encode({"index": index, "argument": ARGUMENT}))
    return NewRun(id=uuid7(), task_key=key, parameters=parameters, scheduled_time=when)


async def _subscribe(url: str, count: int) -> list[ClientConnection]:
    """Open worker sockets that serve one key and never get anything."""
    address = url.replace("http", "ws") + "/api/task_runs/subscriptions/scheduled"

    async def one() -> ClientConnection:
        socket = await connect(address, subprotocols=[SUBPROTOCOL], compression=None)  # type: ignore[list-item]
        for frame in (Auth(), Subscribe(client_id="idle", keys=("bench.idle",), limit=10)):
            await socket.send(encode(frame).decode())
            await socket.recv()
        return socket

    sockets: list[ClientConnection] = []
    for start in range(0, count, 50):
        sockets += await asyncio.gather(*(one() for _ in range(min(50, count - start))))
    return sockets


def median(repeats: Sequence[Figures]) -> Figures:
    """Return each figure's median."""
    return {name: statistics.median(figures[name] for figures in repeats) for name in repeats[0]}
