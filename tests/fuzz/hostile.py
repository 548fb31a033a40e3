"""Peers that never read, that flood, that begin and never go on, and that all come at once."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from runlane.protocol import messages as m
from tests.faults.harness import get, new_run, producer_wire, subscribed, worker_wire

from . import raw
from .peers import SUBSCRIBE
from .rig import MIB, Rig, rig

#: Quiet and hostile windows, in turn; and how often hostile peers come in one of these: when the last are cut.
PAIRS = 9
WAVES = 5
#: Seconds of a quiet window for each wave of a hostile one: that is how long one takes.
QUIET = 6.0
#: Seconds after which nobody waits for a peer to be cut any more.
PATIENCE = 30.0


async def hostile(peers: int, pairs: int = PAIRS, waves: int = WAVES) -> dict[str, Any]:
    """Do all of it, and say what came of it."""
    with tempfile.TemporaryDirectory(prefix="runlane-hostile-") as folder:
        async with rig(Path(folder)) as it:
            figures = await compared(it, peers, pairs, waves)
            figures |= await _half(it, 20 * peers)
            figures |= await _storm(it, 50 * peers)
            end = await it.healthy.end()
            await it.place.end()
            it.audit()
            faults = it.faults()
    for line in faults[:10]:
        print(line)
    return {
        **figures,
        "healthy runs": end["submitted"],
        "healthy runs lost": end["lost"],
        "lines of the log that must not be": len(faults),
    }


# --- Never reading, and flooding -------------------------------------------------------------------------------


async def compared(it: Rig, peers: int, pairs: int, waves: int) -> dict[str, Any]:
    """Hold windows with hostile peers against windows without."""
    large = await _large_result(it)
    await it.healthy.ask("start")
    both: list[tuple[dict[str, Any], dict[str, Any]]] = []
    cuts: dict[str, list[float]] = {"never reading": [], "flooding": []}
    before = most = it.broker.rss()
    for _ in range(pairs):
        quiet = await _quiet(it, waves * QUIET)
        for _ in range(waves):
            for what, seconds in (await it.peers.ask("loose", large, peers, seconds=3 * PATIENCE)).items():
                cuts[what] += seconds
            most = max(most, it.broker.rss())
        both.append((quiet, await it.healthy.ask("hostile")))
    return {
        "samples, quiet": sum(quiet["samples"] for quiet, _ in both),
        "samples, hostile": sum(loud["samples"] for _, loud in both),
        **{
            f"ms of a healthy dispatch, quiet, {p}": statistics.median(q[p] for q, _ in both)
            for p in ("p50", "p99")
        },
        **{
            f"x as long meanwhile, {p} (median of {pairs} pairs)": statistics.median(h[p] / q[p] for q, h in both)
            for p in ("p50", "p99")
        },
        **{f"s until the last {what} was cut": max(seconds) for what, seconds in cuts.items()},
        "MiB of growth at most": (most - before) / MIB,
    }


async def _quiet(it: Rig, seconds: float) -> dict[str, Any]:
    """Return a window in which nobody is hostile. Healthy peers that stand still even then are a fault."""
    await asyncio.sleep(seconds)
    figures = await it.healthy.ask("quiet")
    assert figures["samples"], "nothing is dispatched, though nobody is hostile any more"
    return figures


async def _large_result(it: Rig) -> str:
    """Have a run with a result of 256 KiB; its id."""
    run = new_run("hostile.large")
    async with producer_wire(it.place) as producer, worker_wire(it.place) as worker:
        await subscribed(worker, run.task_key)
        await producer.send(m.Submit(ref=1, runs=(msgspec.Raw(encode_run(run)),)))
        (pushed,) = (await worker.expect(m.Runs)).runs
        result = msgspec.Raw(b'"' + b"x" * 256 * 1024 + b'"')
        completed = m.FinalState(type="COMPLETED")
        await worker.send(m.Finished(id=pushed.id, attempt=pushed.attempt, state=completed, result=result))
        await worker.expect(m.Recorded)
    return run.id


def encode_run(run: m.NewRun) -> bytes:
    """Return an item of a `submit`."""
    return msgspec.json.encode(run)


# --- Half a handshake, and thousands of whole ones --------------------------------------------------------------


async def _half(it: Rig, count: int) -> dict[str, Any]:
    """Connect and say nothing, half a head, or no `auth`: each is cut, while a whole handshake stays quick."""
    openings = (b"", b"GET /livez HTTP/1.1\r\nHo", raw.upgrade("worker")[:-2], raw.upgrade("worker"))
    cutting = [asyncio.create_task(_cut(it.place.port, openings[i % 4])) for i in range(count)]
    probes: list[float] = []
    while not all(task.done() for task in cutting):
        since = time.monotonic()
        assert await get(it.place.port, "/livez") == 200
        probes.append(time.monotonic() - since)
        await asyncio.sleep(0.05)
    seconds = [task.result() for task in cutting]
    return {
        f"half handshakes of {count} that were cut": sum(one < PATIENCE for one in seconds),
        "s until the last half handshake was cut": max(seconds),
        "ms of a whole request meanwhile, p99": sorted(probes)[int(len(probes) * 0.99)] * 1e3,
    }


async def _cut(port: int, opening: bytes) -> float:
    since = time.monotonic()
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            since = time.monotonic()
            writer.write(opening)
            while await reader.read(1000):
                pass
            writer.close()
    return time.monotonic() - since


async def _storm(it: Rig, count: int) -> dict[str, Any]:
    """Let so many workers come at once; each tries again until it is subscribed."""
    since = time.monotonic()
    times = await _gather([lambda: _subscribe(it.place.port)] * count)
    seconds = time.monotonic() - since
    attempts = sum(attempts for _, attempts in times)
    for peer, _ in times:
        peer.close()
    return {f"s until {count} workers were subscribed": seconds, "connections tried for that": attempts}


async def _gather(calls: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
    return await asyncio.gather(*(call() for call in calls))


async def _subscribe(port: int) -> tuple[raw.Raw, int]:
    attempts = 0
    while True:
        attempts += 1
        with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(2 * PATIENCE):
                peer = await raw.connect(port, "worker")
                await peer.send(b'{"type":"auth"}', SUBSCRIBE)
                await peer.reader.readuntil(b'"subscribed"')
                return peer, attempts
        await asyncio.sleep(0.2)


def verdict(figures: dict[str, Any]) -> list[str]:
    """Return what is not as it must be."""
    wrong = [name for name in ("healthy runs lost", "lines of the log that must not be") if figures[name]]
    return wrong + [name for name, value in figures.items() if " was cut" in name and value > 10]
