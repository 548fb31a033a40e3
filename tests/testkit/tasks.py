"""Tasks to be tested. What they have done stands in `log`, which a fixture empties."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import date
from typing import Any

from runlane import current_run, task

log: list[Any] = []


@task(key="kit.add")
async def add(a: int, b: int = 3) -> int:
    log.append(("add", a, b))
    return a + b


@task(key="kit.mul")
def mul(a: int, b: int) -> int:
    log.append(("mul", a, b))
    return a * b


@task(key="kit.flaky", retries=2, retry_delay=3600)
def flaky(until: int) -> int:
    attempt = current_run().attempt
    log.append(("flaky", attempt))
    if attempt < until:
        raise ValueError(f"not yet: {attempt}")
    return attempt


@task(key="kit.broken")
async def broken(what: str) -> None:
    raise KeyError(what)


@task(key="kit.snoozer")
def snoozer() -> str:
    log.append(("snoozer", current_run().attempt))
    if current_run().attempt < 3:
        current_run().snooze(60)
    return "awake"


@dataclass
class Parcel:
    name: str
    sent: date


@task(key="kit.deliver")
def deliver(parcel: Parcel, *stops: str, **notes: str) -> Parcel:
    return parcel


@task(key="kit.loose")
def loose(value):  # type: ignore[no-untyped-def]
    return value


@task(key="kit.parent")
async def parent(n: int) -> int:
    future = await add.adelay(n)
    log.append(("parent", n))
    await add.options(delay=60).adelay(n, 100)
    return n if future.created else -1


@task(key="kit.sync_parent")
def sync_parent(n: int) -> None:
    add.delay(n)


@task(key="kit.waiting")
async def waiting(n: int) -> int:
    return await (await add.adelay(n)) + 1000


@task(key="kit.stuck")
async def stuck() -> None:
    await asyncio.sleep(3600)


@task(key="kit.where")
async def where() -> int:
    log.append((asyncio.get_running_loop(), threading.current_thread()))
    return 0


@task(key="kit.heavy", pool="process")
def heavy(n: int) -> int:
    log.append(("heavy", n))  # seen here: it is not in another process
    return n
