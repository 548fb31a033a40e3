"""A worker in the test's own loop, and a broker that is spoken by hand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from runlane import Task, Worker
from runlane.protocol import messages as m
from tests.sdk.fake_broker import FakeBroker, Peer, fake_broker


@asynccontextmanager
async def working(
    *tasks: Task[..., Any], broker: FakeBroker | None = None, **options: Any
) -> AsyncIterator[tuple[Worker, Peer]]:
    """Run a worker that is subscribed; end it at the end, whatever state it is in."""
    if broker is None:
        async with fake_broker() as broker, working(*tasks, broker=broker, **options) as pair:
            yield pair
        return
    worker = Worker(tasks, settings=broker.settings, **options)
    running = asyncio.create_task(worker.run())
    try:
        peer = await broker.peer()
        await peer.subscribed()
        yield worker, peer
    finally:
        await broker.end(running)


def error_of(report: m.Finished) -> dict[str, str]:
    assert report.state.type == "FAILED", report
    return msgspec.json.decode(report.error)


def result_of(report: m.Finished) -> Any:
    assert report.state.type == "COMPLETED", report.error and bytes(report.error)
    return msgspec.json.decode(report.result)


def is_alive(pid: int) -> bool:
    """Say whether a process runs (a zombie does not)."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(") ")[2][0] != "Z"


async def gone(pids: Iterable[int], seconds: float = 5.0) -> None:
    """Wait until these processes have ended."""
    async with asyncio.timeout(seconds):
        while any(is_alive(pid) for pid in pids):
            await asyncio.sleep(0.01)
