"""Tasks for processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from runlane import Client, RunFuture, Settings, current_run, task


@task(key="cpu.pid", pool="process")
def pid() -> int:
    print("in a process")
    return os.getpid()


@task(key="cpu.exit", pool="process")
def exit(code: int) -> None:
    os._exit(code)


@task(key="cpu.die", pool="process")
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(key="cpu.sleep", pool="process")
def sleep(seconds: float) -> int:
    print("sleeping", file=sys.stderr)
    time.sleep(seconds)
    return os.getpid()


@task(key="cpu.fork", pool="process")
def fork() -> int:
    os.fork()
    return os.getpid()


@task(key="cpu.polite", pool="process")
def polite() -> str:
    while not current_run().cancelled:
        time.sleep(0.005)
    return "as you wish"


@task(key="cpu.checks", pool="process")
def checks() -> None:
    while True:
        current_run().checkpoint()
        time.sleep(0.002)


@task(key="cpu.count", pool="process")
def count() -> None:
    for n in range(1000):
        current_run().progress(n, 1000, "going")
    time.sleep(1)


@task(key="cpu.quick", pool="process")
def quick() -> None:
    current_run().progress(1, 2)
    current_run().progress(2, 2)


@task(key="cpu.size", pool="process")
def size(text: str) -> str:
    return text[::-1]


@task(key="cpu.large", pool="process")
def large() -> str:
    return "x" * 600_000


@task(key="cpu.fail", pool="process", no_retry_on=ValueError)
def fail() -> None:
    raise ValueError("bad")


@task(key="cpu.snooze", pool="process")
def snooze() -> None:
    try:
        current_run().snooze(7)
    except Exception:
        raise AssertionError("no task's own handler sees it") from None


@task(key="cpu.log", pool="process")
def log() -> None:
    current_run().logger.warning("hello %s", "you")
    try:
        raise ValueError("bad")
    except ValueError:
        current_run().logger.exception("caught")


@task(key="cpu.about", pool="process")
def about() -> list[object]:
    run = current_run()
    assert run.deadline is not None
    try:
        resources = str(run.resources)
    except Exception as exc:
        resources = str(exc)
    return [run.id, run.attempt, run.task_key, dict(run.headers), run.deadline.timestamp(), resources]


@task(key="cpu.family", pool="process")
def family(seconds: float) -> None:
    """Start something of its own, which holds the process's pipes."""
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    current_run().progress(child)
    time.sleep(seconds)
    os._exit(1)


@task(key="cpu.wait", pool="process")
def wait(url: str, awaited: str) -> int:
    return RunFuture[int](awaited, Client(Settings(url=url))).result()


@task(key="cpu.waits", pool="process")
def waits(url: str, other: str) -> None:
    """Wait for another run, without end."""
    RunFuture[Any](other, Client(Settings(url=url))).result()
