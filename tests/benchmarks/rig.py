"""The processes of a measurement: a broker and a worker of their own, in a folder of their own."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runlane.client import Client
from runlane.settings import Settings

from .work import ARGUMENT, count_records, noop

#: Seconds within which a process that is asked to end has done so.
_PATIENCE: Final = 20.0
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Rig:
    """A running broker, perhaps a worker, and a connected producer."""

    folder: Path
    url: str
    broker_pid: int
    worker_pid: int
    records: Path

    async def begun(self, count: int, seconds: float = 120.0) -> None:
        """Wait until so many tasks have begun."""
        async with asyncio.timeout(seconds):
            while count_records(self.records) < count:
                await asyncio.sleep(0.0005)

    def commits(self) -> int:
        """Return how many transactions the broker has committed."""
        with closing(sqlite3.connect(self.folder / "bench.db")) as database:
            return database.execute("SELECT commit_number FROM broker").fetchone()[0]


@asynccontextmanager
async def rig(*, limit: int = 0, environment: dict[str, str] | None = None) -> AsyncGenerator[Rig]:
    """Start a broker and, with a limit, a worker; the first run has been executed."""
    with tempfile.TemporaryDirectory(prefix="runlane-bench-") as name:
        folder = Path(name)
        records = folder / "records"
        records.touch()
        async with AsyncExitStack() as stack:
            serve = ("serve", "--port", "0", "--db", f"sqlite:///{folder / 'bench.db'}")
            broker = await stack.enter_async_context(process(folder / "broker.log", serve, environment or {}))
            url = await _url(folder / "broker.log")
            worker_pid = 0
            await stack.enter_async_context(Client(Settings(url=url)))
            if limit:
                work = ("worker", "tests.benchmarks.work", "--limit", str(limit), "--log-level", "warning")
                told = {"RUNLANE_URL": url, "BENCH_RECORDS": str(records)}
                worker = await stack.enter_async_context(process(folder / "worker.log", work, told))
                worker_pid = worker.pid
            it = Rig(folder, url, broker.pid, worker_pid, records)
            if limit:
                for i in range(20):
                    await noop.adelay(-1 - i, ARGUMENT)
                await it.begun(20)
                records.write_bytes(b"")
            yield it


@asynccontextmanager
async def process(
    log: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run `runlane` with these arguments and variables, and no others of the environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RUNLANE_")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "runlane", *arguments, stdout=output, stderr=output, env={**clean, **environment}
        )
        try:
            yield process
        finally:
            await ended(process, process.terminate)


async def ended(process: asyncio.subprocess.Process, ask: Callable[[], None]) -> None:
    """Ask a process to end, and wait until it has; kill it where it does not."""
    if process.returncode is None:
        ask()
    try:
        async with asyncio.timeout(_PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


async def _url(log: Path) -> str:
    async with asyncio.timeout(30):
        while (match := re.search(r"listening on (http://\S+?),", log.read_text())) is None:
            await asyncio.sleep(0.02)
    return match[1]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory_bytes(pid: int) -> int:
    """Return a process's own share of memory (PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match: Any = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024
