"""The work that is measured: tasks whose first line leaves a record outside the system under test."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Final

from runlane import task

#: About 200 bytes as JSON.
ARGUMENT: Final = {
    "id": "0123456789abcdef0123456789abcdef",
    "user": "someone@example.com",
    "url": "https://example.com/a/rather/long/path?with=query&and=more",
    "n": 12345,
    "f": 3.14159,
    "tags": ["alpha", "beta", "gamma"],
    "x": "y" * 20,
}
#: Index, and the monotonic clock in nanoseconds: one clock for all processes of a machine.
RECORD: Final = struct.Struct("<qq")


class Recorder:
    """Appends a record; opened at the first one, when the worker knows where."""

    def __init__(self) -> None:
        self._file = -1

    def record(self, index: int) -> None:
        """Note that the task of this index has begun."""
        if self._file < 0:
            self._file = os.open(os.environ["BENCH_RECORDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(self._file, RECORD.pack(index, time.monotonic_ns()))


_recorder = Recorder()


@task(key="bench.noop")
async def noop(index: int, argument: dict[str, object]) -> None:
    """Say that it has begun, and end."""
    _recorder.record(index)


def read_records(path: Path) -> dict[int, int]:
    """Return when each index began (the last time it did), in nanoseconds."""
    return dict(RECORD.iter_unpack(path.read_bytes()))


def count_records(path: Path) -> int:
    """Return how many have begun."""
    return path.stat().st_size // RECORD.size
