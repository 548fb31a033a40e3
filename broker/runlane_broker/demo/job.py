"""The demo's job: measure every file of Python's standard library, on two workers, and check every answer."""

from __future__ import annotations

import asyncio
import hashlib
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runlane.client import Client
from runlane.settings import Settings

from .processes import broker, worker
from .tasks import Measured, measure

WORKERS: Final = 2
LIMIT: Final = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """One file: when its run was submitted (time of day, seconds), and what came back."""

    path: Path
    submitted: float
    measured: Measured

    @property
    def wait(self) -> float:
        """Seconds from the submit to the task's first line."""
        return max(self.measured.started - self.submitted, 0.0)


@dataclass(frozen=True, slots=True)
class Report:
    """What the job has come to."""

    outcomes: tuple[Outcome, ...]
    seconds: float
    wrong: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Return the summary, for a terminal."""
        waits = sorted(outcome.wait for outcome in self.outcomes)
        count = len(self.outcomes)
        size = sum(outcome.measured.bytes for outcome in self.outcomes)
        lines = sum(outcome.measured.lines for outcome in self.outcomes)
        shares = Counter(outcome.measured.worker for outcome in self.outcomes)
        return [
            f"files      {count:,} ({size:,} bytes, {lines:,} lines)",
            f"time       {self.seconds:.2f} s, {count / self.seconds:,.0f} runs/s",
            f"wait       p50 {_ms(waits, 0.50)}, p99 {_ms(waits, 0.99)} (from submit to the task's first line)",
            f"workers    {', '.join(f'process {pid}: {n:,}' for pid, n in sorted(shares.items()))}",
            f"verified   {count - len(self.wrong):,} of {count:,} equal to a local computation",
        ]


def _ms(values: Sequence[float], quantile: float) -> str:
    if not values:
        return "-"
    return f"{values[min(int(len(values) * quantile), len(values) - 1)] * 1000:.1f} ms"


def source_files() -> list[Path]:
    """Return every .py file of this Python's standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    installed = {"site-packages", "dist-packages"}
    return sorted(p for p in library.rglob("*.py") if p.is_file() and not installed & set(p.parts))


async def run(say: Callable[[str], None]) -> Report:
    """Start broker and workers, run the job, check the answers, stop everything."""
    files = source_files()
    with tempfile.TemporaryDirectory(prefix="runlane-demo-") as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(broker(folder))
            say(f"A broker listens on {url}, its database is {folder / 'demo.db'}.")
            for number in range(1, WORKERS + 1):
                await stack.enter_async_context(worker(folder, f"worker-{number}", url, LIMIT))
            say(f"{WORKERS} workers, {LIMIT} runs each, serve the task {measure.key}.")
            await stack.enter_async_context(Client(Settings(url=url)))  # tasks submit through it from here on
            say(f"Measuring the {len(files):,} .py files of the standard library:")
            await _measure(files[:1])  # until a worker is there; its start is not the job's
            start = time.perf_counter()
            outcomes = await _measure(files)
            seconds = time.perf_counter() - start
    wrong = tuple(outcome.path for outcome in outcomes if not _is_right(outcome))
    return Report(tuple(outcomes), seconds, wrong)


async def _measure(files: Sequence[Path]) -> list[Outcome]:
    return await asyncio.gather(*(_measure_one(path) for path in files))


async def _measure_one(path: Path) -> Outcome:
    submitted = time.time()
    future = await measure.adelay(str(path))
    return Outcome(path, submitted, await future)


def _is_right(outcome: Outcome) -> bool:
    """Compute the same here, and compare."""
    data = outcome.path.read_bytes()
    expected = (hashlib.sha256(data).hexdigest(), len(data.split(b"\n")) - 1, len(data))
    measured = outcome.measured
    return (measured.sha256, measured.lines, measured.bytes) == expected
