"""The demo's processes: started with the same commands that a user would type, ended when the demo ends."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from ..errors import StartupError

T = TypeVar("T")

#: How long a process may take to say that it is ready, and to end when told to. Seconds.
PATIENCE: Final = 30.0
_LISTENING: Final = re.compile(r"listening on (http://\S+?),")


class Processes:
    """A broker on a free port and its workers. All they write is in `folder`. Leaving the block ends them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in reversed(self._running.values()):  # the workers first, or they would look for their broker
            await _end(process)

    async def broker(self) -> str:
        """Run `runlane serve`; return its URL once it listens. Raises `StartupError`."""
        await self._start("broker", "serve", "--port", "0", "--db", f"sqlite:///{self._folder / 'demo.db'}")
        return (await self.guard(self._line("broker", _LISTENING)))[1]

    async def worker(self, name: str, url: str, limit: int) -> None:
        """Run `runlane worker` on the demo's tasks."""
        module, limits = "runlane_broker.demo.tasks", ("--limit", str(limit), "--log-level", "warning")
        await self._start(name, "worker", module, "--url", url, *limits)

    async def guard(self, job: Coroutine[Any, Any, T]) -> T:
        """Return what the job returns. Raises `StartupError` if a process ends before it does."""
        main = asyncio.ensure_future(job)
        ends = {asyncio.ensure_future(process.wait()): name for name, process in self._running.items()}
        try:
            done, _ = await asyncio.wait((main, *ends), return_when=asyncio.FIRST_COMPLETED)
            ended = [name for end, name in ends.items() if end in done]
            if main not in done and ended:
                raise StartupError(f"the {ended[0]} has ended: {self._last_line(ended[0])}")
            return await main
        finally:
            for task in (main, *ends):
                task.cancel()

    async def _start(self, name: str, *arguments: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RUNLANE_")}
        clean["RUNLANE_CONFIG"] = os.devnull  # nor may a runlane.toml have a say
        with self._log(name).open("wb") as output:
            self._running[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "runlane", *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=clean,
            )  # fmt: skip

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    async def _line(self, name: str, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait for a line of a process's output. Raises `StartupError` if it does not come."""
        try:
            async with asyncio.timeout(PATIENCE):
                while (match := pattern.search(self._log(name).read_text("utf-8", "replace"))) is None:
                    await asyncio.sleep(0.02)
                return match
        except TimeoutError:
            raise StartupError(f"the {name} did not start: {self._last_line(name)}") from None

    def _last_line(self, name: str) -> str:
        lines = self._log(name).read_text("utf-8", "replace").splitlines()
        return lines[-1] if lines else "it said nothing"


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
