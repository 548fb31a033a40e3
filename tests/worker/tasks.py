"""Tasks that do to a worker what real ones do. What they execute they note where $EXECUTIONS says."""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import re
import time

from runlane import current_run, task
from tests.faults.tasks import note

_CATASTROPHE = re.compile(r"(a+)+$")


def hold_the_lock(seconds: float) -> float:
    """Keep the interpreter's lock in C for at least so long, in one call; return the seconds it was."""
    text, took = "a" * 18 + "b", 0.0
    while took < seconds:
        begun = time.perf_counter()
        _CATASTROPHE.findall(text)
        took = time.perf_counter() - begun
        text *= math.ceil(1.2 * seconds / took)
    return took


@task(key="busy")
def busy(seconds: float) -> None:
    """Keep a thread busy in pure Python."""
    note("start")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    note("end")


@task(key="block")
async def block(seconds: float) -> None:
    """Block the event loop."""
    note("start")
    time.sleep(seconds)  # noqa: ASYNC251  (that is the point)
    note("end")


@task(key="keep")
def keep(seconds: list[float]) -> int:
    """Keep the lock of the worker itself, in one call of C: at the n-th attempt for the n-th time; return n."""
    note("start")
    attempt = current_run().attempt
    ctypes.PyDLL(None).usleep(int(seconds[attempt - 1] * 1_000_000))  # which does not let go of the lock
    note("end")
    return attempt


@task(key="lock", pool="process")
def lock(seconds: float) -> float:
    """Hold the lock of the process."""
    note("start")
    held = hold_the_lock(seconds)
    note("end")
    return held


@task(key="quick")
async def quick(seconds: float) -> None:
    """Take a little while in the event loop."""
    note("start")
    await asyncio.sleep(seconds)
    note("end")


@task(key="thread")
def thread(seconds: float) -> None:
    """Take a little while in a thread."""
    note("start")
    time.sleep(seconds)
    note("end")


@task(key="process", pool="process")
def process(seconds: float) -> int:
    """Take a little while in a process; return which."""
    note("start")
    time.sleep(seconds)
    note("end")
    return os.getpid()
