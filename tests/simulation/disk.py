"""The database in memory: commits take time, fail before they happen or after, or are refused for a while.

What executes is the product's: the writer's groups and callbacks, `SqliteExecutor`, every operation and every
statement. Only the thread between them is gone.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import Empty
from typing import Any, Final

from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import SQLAlchemyError

from runlane_broker.clock import Clock
from runlane_broker.errors import RunlaneError, StoreUnavailable
from runlane_broker.storage.records import Refill
from runlane_broker.storage.sqlite import Compiler, SqliteExecutor, SqliteRefiller
from runlane_broker.storage.store import Store
from runlane_broker.storage.writer import Writer

from ..support import empty_database
from .loop import VirtualLoop

_MEMORY: Final = Path(":memory:")


@dataclass
class Moods:
    """How the disk is. Delays in seconds; the others are probabilities, for each commit or read."""

    commit_delay: float = 0.001
    read_delay: float = 0.001
    fails_before: float = 0.0
    fails_after: float = 0.0
    read_fails: float = 0.0
    #: Until when nothing can be written at all.
    locked_until: float = 0.0


class _Connection(sqlite3.Connection):
    """Fails where it is told to, and stays open when a pool lets go of it."""

    disk: Disk

    def cursor(self, factory: Any = None) -> sqlite3.Cursor:
        return super().cursor(_Cursor)

    def close(self) -> None:
        pass


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if sql == "COMMIT":
            return self.connection.disk.commit(super().execute)  # type: ignore[attr-defined]
        if sql == "BEGIN IMMEDIATE":
            self.connection.disk.begin()  # type: ignore[attr-defined]
        return super().execute(sql, parameters)


class Disk:
    """What survives the brokers."""

    def __init__(self, loop: VirtualLoop, source: random.Random, moods: Moods) -> None:
        self.loop = loop
        self.source = source
        self.moods = moods
        self.connection = sqlite3.connect(
            ":memory:", isolation_level=None, cached_statements=512, factory=_Connection, check_same_thread=False
        )
        self.connection.disk = self
        self.connection.deserialize(_in_memory(empty_database()))
        self.connection.execute("PRAGMA foreign_keys = ON")

    def begin(self) -> None:
        """Refuse to begin while somebody else has the lock."""
        if self.loop.time() < self.moods.locked_until:
            raise sqlite3.OperationalError("database is locked")

    def commit(self, execute: Callable[[str], sqlite3.Cursor]) -> sqlite3.Cursor:
        """Commit, and now and then say that it failed, before or after."""
        if self.source.random() < self.moods.fails_before:
            raise sqlite3.OperationalError("disk I/O error")
        done = execute("COMMIT")
        if self.source.random() < self.moods.fails_after:
            raise sqlite3.OperationalError("disk I/O error")
        return done

    def query(self, text: str, *params: Any) -> list[tuple[Any, ...]]:
        """Look at the database from outside."""
        return self.connection.execute(text, params).fetchall()

    def close(self) -> None:
        """Forget everything."""
        sqlite3.Connection.close(self.connection)


def _in_memory(file: bytes) -> bytes:
    """A database in memory has no log: change the two bytes of the header that say so."""
    return file[:18] + b"\1\1" + file[20:]


class _Queue:
    """The writer's queue, without a thread at its other end."""

    def __init__(self, filled: Callable[[], None]) -> None:
        self._filled = filled
        self._entries: deque[Any] = deque()

    def put(self, entry: Any) -> None:
        self._entries.append(entry)
        self._filled()

    def get(self, timeout: float | None = None) -> Any:
        if not self._entries:
            raise Empty  # nothing comes while the writer is at work
        return self._entries.popleft()

    get_nowait = get

    def __len__(self) -> int:
        return len(self._entries)


class SimulatedWriter(Writer):
    """Commits groups after a while, on the event loop; one at a time."""

    def __init__(self, executor: SqliteExecutor, disk: Disk) -> None:
        super().__init__(executor)  # the thread ends at once
        self._disk = disk
        self._waiting_entries = _Queue(self._begin)
        self._queue = self._waiting_entries  # type: ignore[assignment]
        self._busy = False

    def _work(self) -> None:
        pass

    def _begin(self) -> None:
        if not self._busy:
            self._busy = True
            self._later(self._commit)

    def _commit(self) -> None:
        group = self._take()
        if group is None:
            return
        outcomes = self._execute(group)
        self._later(self._told, group, outcomes)

    def _told(self, group: Any, outcomes: Any) -> None:
        self._busy = False
        for (operation, _), outcome in zip(group, outcomes, strict=False):
            if isinstance(outcome, Exception) and not isinstance(outcome, RunlaneError):
                self._loop.call_exception_handler({"message": f"{operation}", "exception": outcome})
        if group:
            self._deliver(group, outcomes)
        if (self._waiting_entries or self._lane.due_in() is not None) and not self._busy:
            self._begin()

    def _later(self, call: Callable[..., None], *args: Any) -> None:
        delay = self._disk.moods.commit_delay * self._disk.source.expovariate(1)
        self._loop.call_later(delay, call, *args)

    async def close(self) -> None:
        """Wait until all is written."""
        self._closed = True
        self._flush_lazy()
        while self.waiting:
            await asyncio.sleep(0.01)


class SimulatedStore(Store):
    """Reads inline: what a read sees is of one moment, when its answer comes of a later one."""

    def __init__(self, disk: Disk, clock: Clock, broker_id: str, source: random.Random) -> None:
        executor = SqliteExecutor(_MEMORY, clock, broker_id, source=source, connect=lambda _: disk.connection)
        executor._compiler = _compiler()
        refiller = SqliteRefiller(_MEMORY)
        refiller._compiler = _compiler()
        refiller._connection = disk.connection
        self._disk = disk
        super().__init__(SimulatedWriter(executor, disk), refiller, None)  # type: ignore[arg-type]

    async def refill(self, task_key: str, now: int, limit: int) -> Refill:
        await self._delay()
        self._may_fail()
        refill = self._refiller.refill(task_key, now, limit)
        await self._delay()
        return refill

    async def close(self) -> None:
        await self._writer.close()

    async def _delay(self) -> None:
        await asyncio.sleep(self._disk.moods.read_delay * self._disk.source.expovariate(1))

    def _may_fail(self) -> None:
        if self._disk.source.random() < self._disk.moods.read_fails:
            raise StoreUnavailable("disk I/O error")

    def _reading(self) -> Any:
        return _Reading(self)


class _Reading:
    """A read connection: see `storage.store._Reading`."""

    def __init__(self, store: SimulatedStore) -> None:
        self._store = store

    async def __aenter__(self) -> _Reading:
        await self._store._delay()
        self._store._may_fail()
        return self

    async def execute(self, statement: Any, params: Any = None) -> _Rows:
        with _engine(self._store._disk) as connection:
            try:
                rows = _Rows(connection.execute(statement, params))
            except SQLAlchemyError as exc:
                raise StoreUnavailable(str(exc)) from exc
        await self._store._delay()
        return rows

    async def __aexit__(self, *_: object) -> None:
        pass


class _Rows:
    """An answer that has been read to its end."""

    def __init__(self, result: CursorResult[Any]) -> None:
        self._rows = result.all()

    def __iter__(self) -> Any:
        return iter(self._rows)

    def all(self) -> Any:
        return self._rows

    def scalar_one(self) -> Any:
        return self._rows[0][0]

    def one_or_none(self) -> Any:
        return self._rows[0] if self._rows else None

    first = one_or_none


@cache
def _compiler() -> Compiler:
    """Statements are compiled once in a process; most brokers here do not live for a minute."""
    return Compiler()


_current: list[sqlite3.Connection] = []


@cache
def _shared_engine() -> Engine:
    return create_engine("sqlite://", creator=lambda: _current[-1], poolclass=NullPool)


def _engine(disk: Disk) -> Any:
    _current[:] = [disk.connection]
    return _shared_engine().connect()
