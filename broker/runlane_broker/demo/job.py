"""The demo's job: measure every file of Python's standard library, on two workers, and check every answer."""

from __future__ import annotations

import asyncio
import hashlib
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from runlane.client import Client
from runlane.settings import Settings

from ..errors import StartupError
from .display import Display
from .history import history_of
from .processes import Processes
from .report import Outcome, Report
from .tasks import measure

WORKERS: Final = 2
LIMIT: Final = 10
#: How long the job may take; it needs a second or two. Seconds.
PATIENCE: Final = 120.0


def source_files() -> list[Path]:
    """Return every .py file of this Python's standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    installed = {"site-packages", "dist-packages"}
    return sorted(p for p in library.rglob("*.py") if p.is_file() and not installed & set(p.parts))


async def run(display: Display) -> Report:
    """Start broker and workers, run the job, check the answers, stop everything. Raises `StartupError`."""
    with tempfile.TemporaryDirectory(prefix="runlane-demo-") as name:
        async with Processes(Path(name)) as processes:
            url = await processes.broker()
            display.say(f"A broker listens on {url}, its database is {name}/demo.db.")
            for number in range(1, WORKERS + 1):
                await processes.worker(f"worker-{number}", url, LIMIT)
            display.say(f"{WORKERS} workers, {LIMIT} runs each, serve the task {measure.key}.")
            try:
                async with asyncio.timeout(PATIENCE):
                    return await processes.guard(_job(url, display))
            except TimeoutError:
                raise StartupError(f"the job has not ended within {PATIENCE:g} s") from None


async def _job(url: str, display: Display) -> Report:
    files = source_files()
    display.say(f"Measuring the {len(files):,} .py files of the standard library:")
    async with Client(Settings(url=url)):  # tasks submit through it from here on
        await _measure(files[:1], lambda _: None)  # until a worker is there; its start is not the job's
        with display.progress(len(files)) as count:
            start = time.perf_counter()
            outcomes = await _measure(files, count)
            seconds = time.perf_counter() - start
    longest = max(outcomes, key=lambda outcome: outcome.wait)
    wrong = tuple(outcome.path for outcome in outcomes if not _is_right(outcome))
    return Report(tuple(outcomes), seconds, wrong, longest, await history_of(url, longest.run_id))


async def _measure(files: Sequence[Path], count: Callable[[Outcome], None]) -> list[Outcome]:
    return await asyncio.gather(*(_measure_one(path, count) for path in files))


async def _measure_one(path: Path, count: Callable[[Outcome], None]) -> Outcome:
    submitted = time.time()
    future = await measure.adelay(str(path))
    outcome = Outcome(path, future.id, submitted, await future)
    count(outcome)
    return outcome


def _is_right(outcome: Outcome) -> bool:
    """Compute the same here, and compare."""
    data = outcome.path.read_bytes()
    expected = (hashlib.sha256(data).hexdigest(), len(data.split(b"\n")) - 1, len(data))
    measured = outcome.measured
    return (measured.sha256, measured.lines, measured.bytes) == expected
