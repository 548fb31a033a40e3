"""What the tests of the storage and of the core share: a clock to turn by hand, runs, and a database to copy."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

from runlane.protocol.ids import uuid7
from runlane_broker.core.submit import payload_hash
from runlane_broker.errors import StoreUnavailable
from runlane_broker.storage.operations.base import Operation
from runlane_broker.storage.records import NewRunRecord
from runlane_broker.storage.schema import upgrade
from runlane_broker.storage.writer import Executor

T = TypeVar("T")

SECOND: Final = 1_000_000
#: Where the tests' clocks begin, in microseconds.
START: Final = 1_750_000_000 * SECOND
#: More than anything here takes: what waits longer will wait for ever.
PATIENCE: Final = 20.0
#: Levels of nesting that no Python reads (3.14 reads what its stack has room for), and that fit in a message.
DEEP: Final = 440_000

_numbers = itertools.count(1)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; one that hangs fails."""
    return asyncio.run(_in_time(coroutine))


async def _in_time(coroutine: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await coroutine


def new_id() -> str:
    """An id that sorts after all before it."""
    number = next(_numbers)
    return uuid7(number * 1_000_000, number)


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += round(seconds * SECOND)
        self._monotonic += seconds

    def set_wall(self, seconds: float) -> None:
        """Set the time of day by so much, as an operator or NTP would: no time passes."""
        self._now += round(seconds * SECOND)


def make_run(key: str = "k", **changes: Any) -> NewRunRecord:
    """A run that is due, unless `changes` say otherwise."""
    parameters = changes.pop("parameters", b'{"x":1}')
    run_id = changes.pop("id", None) or new_id()
    values: dict[str, Any] = {
        "id": run_id,
        "task_key": key,
        "name": key,
        "dynamic_key": run_id,
        "parameters": parameters,
        "payload_hash": payload_hash(key, parameters),
        "priority": 0,
        "due": START,
        "expires": None,
        "retries": 0,
        "retry_delay": (0.0,),
        "retry_jitter": 0.0,
        "timeout": None,
        "tags": (),
        "headers": {},
        "idempotency_key": None,
    }
    return NewRunRecord(**values | changes)


@cache
def empty_database() -> bytes:
    """A database without a row, up to date: made once per process."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        upgrade(path)
        return path.read_bytes()


def new_database(folder: Path, name: str = "runlane.db") -> Path:
    """A new database file, up to date: a copy of one that was made once."""
    path = folder / name
    path.write_bytes(empty_database())
    return path


class Broken(Operation[None]):
    """Fails whenever it is executed, after it has written something."""

    def __init__(self, error: Exception | None = None, before: Operation[Any] | None = None) -> None:
        self.error = error or ValueError("broken")
        self.before = before

    def execute(self, tx: Any) -> None:
        if self.before is not None:
            self.before.execute(tx)
        raise self.error


class ControlledExecutor:
    """An executor that can be held up, and told to fail, and that remembers what it was given."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.groups: list[list[Operation[Any]]] = []
        #: Whether each of them was to wait for the disk.
        self.synced: list[bool] = []
        #: Operations for which this is true are not executed: the database "cannot be written".
        self.fails: Callable[[Operation[Any]], bool] = lambda _: False
        #: Called on the writer's thread before and after each group.
        self.before: Callable[[Sequence[Operation[Any]]], None] = lambda _: None
        self.after: Callable[[Sequence[Operation[Any]]], None] = lambda _: None

    def execute(self, operations: Sequence[Operation[Any]], *, sync: bool = True) -> list[Any]:
        self.groups.append(list(operations))
        self.synced.append(sync)
        self.before(operations)
        failing = [self.fails(operation) for operation in operations]
        kept = [operation for operation, fails in zip(operations, failing, strict=True) if not fails]
        outcomes = iter(self.inner.execute(kept, sync=sync) if kept else [])
        try:
            return [StoreUnavailable("not now") if fails else next(outcomes) for fails in failing]
        finally:
            self.after(operations)

    def close(self) -> None:
        self.inner.close()

    def executed(self, kind: type[Operation[Any]]) -> list[Any]:
        """All operations of a kind that came, in order."""
        return [operation for group in self.groups for operation in group if isinstance(operation, kind)]


class Gate:
    """Holds up the writer's thread, or anything else that calls it, until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._reached = threading.Event()

    def __call__(self, *_: object) -> None:
        self._reached.set()
        assert self._open.wait(PATIENCE), "the gate was never opened"

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        """Wait until somebody stands before the gate."""
        assert await asyncio.to_thread(self._reached.wait, PATIENCE)
