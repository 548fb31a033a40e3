"""Dispatch on Prefect's socket: this broker and a Prefect server, one after the other, driven by the same peers.

`PREFECT_COMMAND` names the `prefect` command of an environment in which its server runs; without it only this
broker is measured. Creates go over keep-alive connections that cost next to nothing; the subscribers are in this
process, and acknowledge each run as soon as it is there.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from .measures import Figures, quantile
from .rig import cpu_seconds, rig
from .subscriber import Subscriber

#: How many connections create at once. More make larger commits here, and more conflicts there: each has its best.
CONNECTIONS: Final = (1, 4, 16)
PATH: Final = "/api/task_runs/subscriptions/scheduled"


async def dispatch(n: int, idle: int, seconds: float) -> Figures:
    """Creates a second, pushes a second to one and to 16 subscribers, latency; then idle subscribers."""
    figures: Figures = {}
    async with rig() as it:
        port = int(it.url.rpartition(":")[2])
        ours = await _measure(port, n)
        figures |= {f"runlane {name}": value for name, value in ours.items()}
    async with rig() as it:  # another: the first still has sessions to lose, and their runs to queue again
        port = int(it.url.rpartition(":")[2])
        figures[f"runlane CPU %, {idle} idle"] = await _idle(port, it.broker_pid, idle, seconds)
    command = os.environ.get("PREFECT_COMMAND")
    if command is not None:
        async with _prefect(command) as port:
            theirs = await _measure(port, min(n, 300))
        figures |= {f"prefect {name}": value for name, value in theirs.items()}
        figures |= {f"ratio {name}": ours[name] / theirs[name] for name in ours}
    return figures


async def _measure(port: int, n: int) -> Figures:
    figures: Figures = {}
    async with _subscriber(port, "warm") as subscriber:
        await _create(port, "warm", 30, 1)
        await subscriber.has(30)
        created = 30
        for count in CONNECTIONS:
            start = time.perf_counter()
            await _create(port, "warm", n, count)
            figures[f"creates/s, {count} connected"] = n / (time.perf_counter() - start)
            created += n
            await subscriber.has(created)
        figures["creates/s, at best"] = max(figures.values())
        waits: list[float] = []
        async with _Http(port) as http:
            for i in range(min(n, 200)):
                begun = time.perf_counter()
                await http.post(_body("warm", i))
                await subscriber.has(created + 1 + i)
                waits.append((subscriber.times[-1] - begun) * 1000)
        figures["create to push, ms p50"] = quantile(waits, 0.5)
    for count in (1, 16):
        figures[f"pushes/s, {count} subscribed"] = await _push(port, f"push{count}", n, count)
    return figures


async def _push(port: int, key: str, n: int, count: int) -> float:
    """Return the rate at which a backlog goes to subscribers, from the second run on.

    Nobody acknowledges the first before everybody has one: a worker that we do not know yet is given the second
    run a second after that (`core.pace`), once in the life of its connection.
    """
    await _create(port, key, n + count, 4)
    gate = asyncio.Event()
    async with AsyncExitStack() as stack, asyncio.timeout(180):
        subscribers = [await stack.enter_async_context(_subscriber(port, key, gate)) for _ in range(count)]
        for subscriber in subscribers:
            await subscriber.has(1)
        gate.set()
        while sum(len(subscriber.times) for subscriber in subscribers) < n + count:
            await asyncio.sleep(0.005)
    later = sorted(moment for subscriber in subscribers for moment in subscriber.times[1:])
    return (len(later) - 1) / (later[-1] - later[0])


async def _idle(port: int, pid: int, count: int, seconds: float) -> float:
    """Return the share of a core, in percent; each is pinged once in 30 s."""
    async with AsyncExitStack() as stack:
        for i in range(count):
            await stack.enter_async_context(_subscriber(port, f"idle{i}"))
        await asyncio.sleep(3)
        before = cpu_seconds(pid)
        await asyncio.sleep(seconds)
        return (cpu_seconds(pid) - before) / seconds * 100


def _subscriber(port: int, key: str, gate: asyncio.Event | None = None) -> Subscriber:
    return Subscriber(port, PATH, key, f"bench-{uuid4()}", gate)


class _Http:
    """One keep-alive connection that posts runs. A server that is busy, or closes it, is asked again."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> _Http:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._writer.close()

    async def post(self, body: bytes) -> None:
        status = 503
        while status == 503:
            try:
                status = await self._post(body)
            except (asyncio.IncompleteReadError, ConnectionError):
                await self.__aenter__()
            if status == 503:
                await asyncio.sleep(0.05)
        assert status == 201, status

    async def _post(self, body: bytes) -> int:
        head = (
            f"POST /api/task_runs/ HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
        )
        self._writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = answer.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await self._reader.readexactly(int(length))
        return int(answer.split(b" ", 2)[1])


async def _create(port: int, key: str, n: int, connections: int) -> None:
    numbers = iter(range(n))

    async def some() -> None:
        async with _Http(port) as http:
            for i in numbers:
                await http.post(_body(key, i))

    await asyncio.gather(*(some() for _ in range(connections)))


def _body(key: str, i: int) -> bytes:
    details = {"deferred": True, "task_parameters_id": str(uuid4())}
    state = {"type": "SCHEDULED", "name": "Scheduled", "message": "p" * 200, "state_details": details}
    run = {"task_key": key, "dynamic_key": f"{i}-{uuid4()}", "name": f"t-{i}", "task_inputs": {}, "state": state}
    return json.dumps(run).encode()


@asynccontextmanager
async def _prefect(command: str) -> AsyncGenerator[int]:
    """A Prefect server as it comes, on an empty SQLite file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="prefect-bench-", ignore_cleanup_errors=True) as home:
        own = {
            "PREFECT_HOME": home,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_UI_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        }
        with Path(home, "log").open("wb") as log:  # noqa: ASYNC230
            arguments = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
            process = await asyncio.create_subprocess_exec(
                command, *arguments, stdout=log, stderr=log, env={**os.environ, **own}, start_new_session=True
            )
        try:
            async with asyncio.timeout(180):
                while not await _is_up(port):
                    await asyncio.sleep(0.2)
            await asyncio.sleep(4)  # what it does at its start
            yield port
        finally:
            os.killpg(process.pid, 9)
            await process.wait()


async def _is_up(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/health HTTP/1.0\r\n\r\n")
        answer = await reader.read(100)
        writer.close()
    except OSError:
        return False
    return b" 200 " in answer
