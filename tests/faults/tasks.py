"""The tasks of these tests. What they execute they write down outside of the system, in a file of their own."""

from __future__ import annotations

import asyncio
import json
import os
import time

from runlane import current_run, task


def note(event: str) -> None:
    """Append one line to the file that $EXECUTIONS names; a single write, which O_APPEND keeps whole."""
    run = current_run()
    line = {
        "event": event,
        "run": run.id,
        "attempt": run.attempt,
        "pid": os.getpid(),
        "monotonic_ns": time.monotonic_ns(),
        "time_ns": time.time_ns(),
    }
    file = os.open(os.environ["EXECUTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


@task(key="work")
async def work(seconds: list[float]) -> str:
    """Take the n-th time at the n-th attempt; the last one also at all later ones."""
    note("start")
    attempt = current_run().attempt
    await asyncio.sleep(seconds[min(attempt, len(seconds)) - 1])
    note("end")
    return f"attempt {attempt}"


@task(key="flaky")
async def flaky(failures: int) -> str:
    """Fail at the first attempts."""
    note("start")
    attempt = current_run().attempt
    note("end")
    if attempt <= failures:
        raise RuntimeError(f"attempt {attempt} fails")
    return f"attempt {attempt}"
