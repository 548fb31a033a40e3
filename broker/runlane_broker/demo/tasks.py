"""The demo's task. Workers import this module; it is an ordinary user's module."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import msgspec

from runlane.tasks import task


class Measured(msgspec.Struct, frozen=True):
    """What a worker found out about a file, and when: time of day and duration, in seconds."""

    sha256: str
    lines: int
    bytes: int
    worker: int
    started: float
    seconds: float


@task(key="demo.measure", retries=2)
async def measure(path: str) -> Measured:
    """Read a file; return its checksum, its lines and its bytes."""
    started = time.time()
    begun = time.perf_counter()
    data = Path(path).read_bytes()
    digest, lines = hashlib.sha256(data).hexdigest(), data.count(b"\n")
    return Measured(digest, lines, len(data), os.getpid(), started, time.perf_counter() - begun)
