"""Tasks, for Prefect 3 and for Prefect 2. Runs in an environment of Prefect's: nothing of Runlane is there."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from prefect import task

NOTES = Path(os.environ.get("NOTES", "notes"))


def note(name: str, what: str) -> int:
    """Note an execution in a file; return how many of that name there are."""
    line = f"{name} {what} {os.getpid()}\n"
    with NOTES.open("a") as file:
        file.write(line)
    return NOTES.read_text().count(f"{name} {what} ")


@task
def add(x, y):
    return x + y


@task
async def add_async(x, y):
    await asyncio.sleep(0.01)
    return x + y


@task(retries=2, retry_delay_seconds=1)
def flaky(name):
    if note(name, "tried") < 3:
        raise RuntimeError("not yet")
    return "done"


@task
def fail():
    raise ValueError("bad luck")


@task(timeout_seconds=0.5)
async def too_slow():
    await asyncio.sleep(30)


@task(tags=["limited"], log_prints=True)
def tagged(word):
    print("a line of the log")
    return word


@task
def nap(name, seconds):
    note(name, "began")
    time.sleep(seconds)
    note(name, "ended")
    return name


@task
async def doze(name, seconds):
    note(name, "began")
    await asyncio.sleep(seconds)
    note(name, "ended")
    return name


@task
def stay(name):
    """The first time it stays for longer than anybody waits."""
    if note(name, "began") == 1:
        time.sleep(300)
    return name


@task
def a(name):
    note(name, "a")


@task
def b(name):
    note(name, "b")


@task
def c(name):
    note(name, "c")


TASKS = (add, add_async, flaky, fail, too_slow, tagged, nap, doze, stay, a, b, c)
