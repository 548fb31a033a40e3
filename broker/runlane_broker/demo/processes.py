"""The demo's processes: started with the same commands that a user would type, ended when the demo ends."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from ..errors import StartupError

#: How long a process may take to say that it is ready, and to end when told to. Seconds.
PATIENCE: Final = 30.0
_LISTENING: Final = re.compile(r"listening on (http://\S+?),")


@asynccontextmanager
async def broker(folder: Path) -> AsyncGenerator[str]:
    """Run `runlane serve` on a free port with a database in `folder`; gives its URL."""
    command = ("serve", "--port", "0", "--db", f"sqlite:///{folder / 'demo.db'}")
    async with _running(command, folder / "broker.log", {}) as log:
        yield (await _line(log, _LISTENING))[1]


@asynccontextmanager
async def worker(folder: Path, name: str, url: str, limit: int) -> AsyncGenerator[None]:
    """Run `runlane worker` on the demo's tasks."""
    command = ("worker", "runlane_broker.demo.tasks", "--limit", str(limit), "--log-level", "warning")
    async with _running(command, folder / f"{name}.log", {"RUNLANE_URL": url}):
        yield


@asynccontextmanager
async def _running(arguments: Sequence[str], log: Path, environment: dict[str, str]) -> AsyncGenerator[Path]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RUNLANE_")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "runlane", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env={**clean, **environment},
        )  # fmt: skip
        try:
            yield log
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _line(log: Path, pattern: re.Pattern[str]) -> re.Match[str]:
    """Wait for a line of a process's output. Raises `StartupError` with the output if it does not come."""
    try:
        async with asyncio.timeout(PATIENCE):
            while (match := pattern.search(log.read_text("utf-8", "replace"))) is None:
                await asyncio.sleep(0.02)
            return match
    except TimeoutError:
        raise StartupError(f"the broker did not start:\n{log.read_text('utf-8', 'replace')}") from None
