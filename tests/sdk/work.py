"""Tasks for the tests that start a real worker."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from runlane import JsonSerializer, current_run, task


@task(key="work.add")
async def add(a: int, b: int) -> int:
    return a + b


@task(key="work.later")
def later(when: datetime, by: timedelta, *more: Decimal, where: Path) -> tuple[datetime, Decimal, Path]:
    return when + by, sum(more, Decimal()), where


@task(key="work.fail")
def fail(text: str) -> None:
    raise ValueError(text)


@task(key="work.sleep")
async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task(key="work.steps")
def steps(count: int, seconds: float) -> int:
    for step in range(count):
        current_run().progress(step + 1, count)
        time.sleep(seconds)
    return count


@task(key="work.again", retries=2)
def again() -> int:
    attempt = current_run().attempt
    if attempt < 3:
        raise OSError("not yet")
    return attempt


class Backwards(JsonSerializer):
    """What an encrypting serializer looks like."""

    content_type = "application/x-backwards"

    def dumps(self, value: Any) -> bytes:
        return super().dumps(value)[::-1]

    def loads(self, data: bytes) -> Any:
        return super().loads(data[::-1])


@task(key="work.secret", serializer=Backwards())
def secret(amount: Decimal) -> Decimal:
    return amount * 2


@task(key="work.picky", retries=5, no_retry_on=FileNotFoundError)
def picky() -> None:
    attempt = current_run().attempt
    raise FileNotFoundError(attempt) if attempt == 2 else OSError(attempt)


@task(key="work.crunch", pool="process", timeout=20)
def crunch(n: int) -> int:
    return sum(range(n))


@task(key="work.nobody")
def nobody(n: int, text: str = "") -> None:
    """Not served by the worker of the tests."""
