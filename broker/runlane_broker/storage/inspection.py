"""A store that can be looked at as a whole: for the test kit, never for a broker that serves.

It reads on the event loop, without a thread: so the order in which windows are refilled is always the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, StaticPool, create_engine, func, select
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateType

from ..clock import Clock
from . import queries as q
from .operations.base import Operation
from .queries.showing import read_runs
from .records import Change, FinalRun, Freed, Refill, Reported, TransitionOutcome
from .rows import task_run_record
from .run_records import RunRecord
from .sqlite import SqliteExecutor, connect
from .store import Store
from .tables import TASK_RUN, task_run
from .writer import Callback


@dataclass(frozen=True, slots=True)
class Waiting:
    """Runs that have not ended. `next_due`: when the first of those comes due that wait for their time."""

    leased: int
    due: int
    next_due: int | None


class InspectedStore(Store):
    """Notes which runs have ended, in their order, and calls `on_commit` when there is something new."""

    ended: list[str]
    on_commit: Callable[[], None]
    reading: _Reading

    @classmethod
    def of_test(cls, path: Path, clock: Clock, broker_id: str, on_commit: Callable[[], None]) -> InspectedStore:
        """Open a file that needs to outlive nothing: it is never synced to the disk."""
        executor = SqliteExecutor(path, clock, broker_id, connect=_connect)
        store = cast("InspectedStore", cls.sqlite(path, clock, broker_id, executor))
        store.ended = []
        store.on_commit = on_commit
        store.reading = _Reading(path)
        return store

    async def close(self) -> None:
        """Commit what waits and close the database."""
        self.reading.close()
        await super().close()

    def submit(self, operation: Operation[Any], done: Callback) -> None:
        """Queue a write, and look at its outcome when `done` has."""

        def look(outcome: Any) -> None:
            try:
                done(outcome)
            finally:
                self.ended += [run.id for run in _finals(outcome)]
                self.on_commit()

        super().submit(operation, look)

    async def waiting_of(self, task_keys: Sequence[str], now: int) -> Waiting:
        """Count the runs that wait, of these keys, and all that are leased."""
        t = task_run.c
        waiting = (t.state_type == StateType.SCHEDULED.value, t.withheld.is_(None))
        queued = (*waiting, t.task_key.in_(task_keys))
        due = select(func.count()).where(*queued, t.due <= now)
        next_due = select(func.min(t.due)).where(*queued, t.due > now)
        async with self._reading() as connection:
            leased = (await connection.execute(q.count_leased())).scalar_one()
            return Waiting(
                leased,
                (await connection.execute(due)).scalar_one(),
                (await connection.execute(next_due)).scalar_one(),
            )

    async def all_runs(self) -> list[RunRecord]:
        """Return every run, oldest first."""
        query = read_runs(TASK_RUN).order_by(task_run.c.id)
        async with self._reading() as connection:
            return [task_run_record(row) for row in await connection.execute(query)]

    async def refill(self, task_key: str, now: int, limit: int) -> Refill:
        """Return a key's first dispatchable runs in order, at once."""
        return self._refiller.refill(task_key, now, limit)

    def _reading(self) -> Any:
        return self.reading


class _Reading:
    """In place of the store's connections: what is awaited of it is there at once."""

    def __init__(self, path: Path) -> None:
        url = URL.create("sqlite", database=str(path))
        self._engine = create_engine(url, poolclass=StaticPool, isolation_level="AUTOCOMMIT")
        self._connection: Connection | None = None

    def __repr__(self) -> str:
        return f"<_Reading of {self._engine.url}>"

    async def __aenter__(self) -> _Reading:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def execute(self, statement: Executable, parameters: Any = None) -> Any:
        """Read, now."""
        assert self._connection is not None, "execute comes after enter"
        return self._connection.execute(statement, parameters)

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()


def _connect(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def _finals(outcome: Any) -> Iterator[FinalRun]:
    """Yield the runs that an operation, whichever it was, has brought to their end."""
    match outcome:
        case FinalRun():
            yield outcome
        case Reported(final=FinalRun() as final):
            yield final
        case Freed(final=finals):
            yield from finals
        case TransitionOutcome(change=Change(final=FinalRun() as final)):
            yield final
        case Change(final=FinalRun() as final):
            yield final
        case tuple() | list():
            for one in cast("Iterable[Any]", outcome):
                yield from _finals(one)
        case _:
            pass
