"""Processes beside the broker: a line of JSON that goes in is a command, one that comes out its answer."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.faults.harness import PATIENCE, within

# --- On this side --------------------------------------------------------------------------------------------


class Asked:
    """Such a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, *command: Any, seconds: float = PATIENCE) -> Any:
        """Give a command; its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return await self._answer(seconds)

    async def end(self) -> Any:
        """Give no more commands; the last answer."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self._answer(PATIENCE)

    async def _answer(self, seconds: float) -> Any:
        assert self._process.stdout is not None
        line = await within(seconds, self._process.stdout.readline())
        assert line, "a process beside the broker has ended: see above"
        return json.loads(line)

    async def close(self) -> None:
        """See that it is gone."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def asked(module: str, *arguments: object) -> AsyncGenerator[Asked]:
    """Have a module of this package run in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"tests.fuzz.{module}", *map(str, arguments),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
    )  # fmt: skip
    one = Asked(process)
    try:
        yield one
    finally:
        await one.close()


# --- On the other --------------------------------------------------------------------------------------------


async def commands() -> AsyncGenerator[list[Any]]:
    """Yield what is asked, to the end of the input. (A thread that reads it could not be ended.)"""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        yield json.loads(line)


def answer(value: Any) -> None:
    """Answer what was asked."""
    print(json.dumps(value), flush=True)


def step_back() -> None:
    """Take the processor only when nobody else wants it, as if on another machine."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
