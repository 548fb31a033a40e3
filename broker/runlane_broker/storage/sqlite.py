"""SQLite: how a file is opened, locked and written. What only this dialect needs, and nothing else."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from runlane.protocol.ids import uuid7

from ..clock import Clock
from ..errors import RunlaneError, StoreUnavailable
from . import queries as q
from .checkpoints import LONGEST_LOG, Checkpointer
from .operations.base import Operation
from .queries import queues as qq
from .queue_records import first_not_held, full_filters, is_queue_key, split_queue_key
from .records import SCHEDULED_LANE, QueuedRecord, Refill
from .transaction import Params, Row

#: "RLAN", in the file's header: tells a Runlane database from any other SQLite file.
APPLICATION_ID: Final = 0x524C414E
#: How long a writer waits for somebody else's lock (the sqlite3 shell's, say), in seconds.
BUSY_SECONDS: Final = 2.0
#: And how long when it has waited in vain before: what comes then is refused soon, and not after the whole wait.
BUSY_AGAIN_SECONDS: Final = 0.1
#: How long to wait before a commit of unknown outcome is looked up again, in seconds.
_LOOKUP_SECONDS: Final = 0.1

Outcome = Any


def connect(path: Path, *, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open a connection in autocommit mode, with the settings that every connection here has."""
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "temp_store = MEMORY",
        f"wal_autocheckpoint = {LONGEST_LOG}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@dataclass(frozen=True, slots=True)
class Compiled:
    """A statement as text, and how an operation's parameters are put in the order of its question marks.

    `writes`: whether it may change something.
    """

    text: str
    bind: Callable[[Params], Sequence[Any]]
    writes: bool


def _binder(names: tuple[str, ...], constants: Params) -> Callable[[Params], Sequence[Any]]:
    """Return a function from parameters to values. `itemgetter` does it in C, but for fewer than two."""
    if constants:
        return lambda params: [constants[name] if name in constants else params[name] for name in names]
    if len(names) > 1:
        return itemgetter(*names)
    return lambda params: [params[name] for name in names]


class Compiler:
    """Compiles each statement once, from Core, to what the driver takes."""

    def __init__(self) -> None:
        self._dialect = sqlite_dialect(paramstyle="qmark")
        self._cache: dict[q.Query, Compiled] = {}

    def __call__(self, query: q.Query) -> Compiled:
        """Return the compiled statement."""
        compiled = self._cache.get(query)
        if compiled is None:
            compiled = self._cache[query] = self._compile(query)
        return compiled

    def _compile(self, query: q.Query) -> Compiled:
        statement: Any = query()
        result = statement.compile(dialect=self._dialect)
        # Ours end with an underscore (`queries.base.param`); what the dialect adds (an OFFSET 0) has its value.
        constants = {name: result.params[name] for name in result.positiontup if not name.endswith("_")}
        names = tuple(name.removesuffix("_") for name in result.positiontup)
        return Compiled(str(result), _binder(names, constants), not statement.is_select)


class SqliteTransaction:
    """An open transaction on the writer's connection. See `transaction.Transaction`."""

    def __init__(self, cursor: sqlite3.Cursor, compiler: Compiler, ticks: Ticks, now: int) -> None:
        self._cursor = cursor
        self._compiler = compiler
        self._ticks = ticks
        self._later: dict[q.Query, list[Sequence[Any]]] = {}
        self._writes = 0
        self.now = now

    def attempt(self, operation: Operation[Any]) -> Outcome | RunlaneError:
        """Execute an operation; return its outcome, or its refusal if it has written nothing before.

        Raises what the operation raises otherwise.
        """
        before = self._writes
        try:
            return operation.execute(self)
        except RunlaneError as refusal:
            if self._writes != before:
                raise
            return refusal

    def run(self, query: q.Query, params: Params) -> int:
        """Run a statement, return the number of rows it changed."""
        compiled = self._compiler(query)
        changed = self._cursor.execute(compiled.text, compiled.bind(params)).rowcount
        self._writes += changed != 0
        return changed

    def row(self, query: q.Query, params: Params) -> Row | None:
        """Run a statement, return its first row."""
        rows = self.rows(query, params)
        return rows[0] if rows else None

    def rows(self, query: q.Query, params: Params) -> list[Row]:
        """Run a statement, return its rows."""
        compiled = self._compiler(query)
        rows = self._cursor.execute(compiled.text, compiled.bind(params)).fetchall()
        self._writes += compiled.writes
        return rows

    def later(self, query: q.Query, params: Params) -> None:
        """Run a statement before the commit, together with others of its kind."""
        self._writes += 1
        self._later.setdefault(query, []).append(self._compiler(query).bind(params))

    def flush(self) -> None:
        """Run what was put off now, kind after kind, in the order in which the first of each kind came."""
        for query, rows in self._later.items():
            self._cursor.executemany(self._compiler(query).text, rows)
        self._later.clear()

    def tick(self, count: int = 1) -> int:
        """Return a time of day that no other state of this broker has, nor any of `count` from it on."""
        return self._ticks.next(self.now, count)

    def stamp(self, at: int, after: int) -> int:
        """Return `at`, or the microsecond after `after` if the clock was set back."""
        return self._ticks.note(max(at, after + 1))

    def new_id(self, timestamp: int) -> str:
        """Mint an id for something that happened at `timestamp`."""
        return uuid7(timestamp * 1000, self._ticks.bits())

    def random(self) -> float:
        """Return a random number in [0, 1)."""
        return self._ticks.random()


class Ticks:
    """Time stamps that never repeat, and the random numbers of the writer."""

    def __init__(self, source: random.Random, last: int = 0) -> None:
        self._last = last
        self._source = source

    def next(self, now: int, count: int = 1) -> int:
        """Return `now`, or the microsecond after the last one given; from there on, `count` are given."""
        first = max(now, self._last + 1)
        self._last = first + count - 1
        return first

    def note(self, stamp: int) -> int:
        """Return a time stamp given elsewhere; those to come are later."""
        self._last = max(self._last, stamp)
        return stamp

    def bits(self) -> int:
        """Return 62 random bits."""
        return self._source.getrandbits(62)

    def random(self) -> float:
        """Return a random number in [0, 1)."""
        return self._source.random()


class SqliteExecutor:
    """Runs groups of operations, each group in one transaction. Synchronous, for one thread."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        broker_id: str,
        *,
        source: random.Random | None = None,
        connect: Callable[[Path], sqlite3.Connection] = connect,
        wait: Callable[[float], object] | None = None,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        self._connect = partial(connect, path)
        self._connection = self._connect()
        self._is_locked_out = False
        self._syncs = True
        self._wait = wait or threading.Event().wait
        self._checkpointer = checkpointer
        self._compiler = Compiler()
        self._clock = clock
        self._broker_id = broker_id
        self._ticks = Ticks(source or random.Random(), self._newest_state())
        self._number = 0

    def execute(self, operations: Sequence[Operation[Any]], *, sync: bool = True) -> list[Outcome | Exception]:
        """Commit the operations as one group; return each one's outcome, or why it failed.

        Who is refused before it has written anything costs the others nothing. If one fails otherwise, the group
        is rolled back and its operations are redone singly: it fails alone. When the database cannot be written
        at all, each outcome is `StoreUnavailable`. Without `sync` the commit does not wait for the disk: it gets
        there with the next one that does.
        """
        try:
            return self._transaction(operations, sync)
        except Exception as exc:
            if len(operations) == 1 or isinstance(exc, StoreUnavailable):
                return [exc] * len(operations)
        return [outcome for operation in operations for outcome in self.execute((operation,), sync=sync)]

    def _transaction(self, operations: Sequence[Operation[Any]], sync: bool) -> list[Outcome]:
        cursor = self._connection.cursor()
        with closing(cursor):
            self._begin(cursor, sync)
            try:
                outcomes = self._run(cursor, operations)
            except BaseException as exc:
                self._rollback()
                raise _unavailable(exc) from exc
            self._commit(cursor)
        return outcomes

    def _run(self, cursor: sqlite3.Cursor, operations: Sequence[Operation[Any]]) -> list[Outcome]:
        tx = SqliteTransaction(cursor, self._compiler, self._ticks, self._clock.now())
        outcomes = [tx.attempt(operation) for operation in operations]
        tx.flush()
        self._number += 1
        tx.run(q.mark_commit, {"broker_id": self._broker_id, "number": self._number})
        return outcomes

    def _begin(self, cursor: sqlite3.Cursor, sync: bool) -> None:
        try:
            if sync != self._syncs:
                cursor.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
                self._syncs = sync
            cursor.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:
            self._be_patient(cursor, not _is_locked(exc))
            raise _unavailable(exc) from exc
        self._be_patient(cursor, True)

    def _be_patient(self, cursor: sqlite3.Cursor, patient: bool) -> None:
        """Wait for somebody else's lock the whole time, or hardly at all."""
        if patient == self._is_locked_out:
            seconds = BUSY_SECONDS if patient else BUSY_AGAIN_SECONDS
            cursor.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")
            self._is_locked_out = not patient

    def _commit(self, cursor: sqlite3.Cursor) -> None:
        """Commit. If that raises, nobody knows whether it happened: the row that numbers it does."""
        if self._checkpointer is not None:
            self._checkpointer.committed()
        try:
            cursor.execute("COMMIT")
        except sqlite3.Error as exc:
            self._rollback()
            if self._last_commit() != self._number:
                raise _unavailable(exc) from exc

    def _last_commit(self) -> int | None:
        """Read until it can be read: no outcome is told before."""
        text = self._compiler(q.read_commit).text
        while True:
            try:
                row = self._connection.execute(text, [self._broker_id]).fetchone()
            except sqlite3.Error:
                self._wait(_LOOKUP_SECONDS)
            else:
                return row and row[0]

    def _newest_state(self) -> int:
        """Return the time of the newest state: the next one is later, also if the clock was set back since."""
        row = self._connection.execute(self._compiler(q.read_newest_state).text).fetchone()
        return row[0] if row else 0

    def _rollback(self) -> None:
        """Leave the transaction, with a new connection if this one will not let go of it."""
        if not self._connection.in_transaction:
            return
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
            self._connection = self._connect()
            self._is_locked_out = False
            self._syncs = True

    def close(self) -> None:
        """Close the connection, and the checkpointer's; the last one to close folds the WAL into the file."""
        if self._checkpointer is not None:
            self._checkpointer.close()
        self._connection.close()


class SqliteRefiller:
    """Reads what fills a window: both statements in one go, for one thread.

    Dispatch waits for it, and it is asked as often as runs come due; the async engine would hop between threads
    half a dozen times for each.
    """

    def __init__(self, path: Path, connect: Callable[[Path], sqlite3.Connection] = connect) -> None:
        self._connect = partial(connect, path)
        self._connection: sqlite3.Connection | None = None  # made when first needed, on the thread that needs it
        self._compiler = Compiler()

    def refill(self, key: str, now: int, limit: int) -> Refill:
        """Return a key's first dispatchable runs in order, and when its next one comes due."""
        if is_queue_key(key):
            return self._refill_queue(key, now, limit)
        params = {"task_key": key, "now": now, "limit": limit}
        rows = self._rows(q.first_due, params)
        due = self._rows(q.next_due, params)[0][0]
        queued = tuple(QueuedRecord(run_id, key, *rest) for run_id, *rest in rows)
        return Refill(queued, None if due >= q.NEVER else due)

    def _refill_queue(self, key: str, now: int, limit: int) -> Refill:
        _, queue_id = split_queue_key(key)
        params = {"queue_id": queue_id, "after": -q.NEVER, "before": now, "now": now, "limit": limit}
        full = full_filters(self._rows(qq.read_limited_filters, {}), lambda: self._rows(qq.read_started, {}))
        if full:
            with closing(self._execute(qq.all_scheduled, params)) as cursor:
                rows, holds_back = first_not_held(cursor, full, limit)
        else:
            rows, holds_back = self._rows(qq.first_scheduled, params), False
        due = self._rows(qq.next_due, params)[0][0]
        queued = tuple(QueuedRecord(run_id, key, 0, SCHEDULED_LANE, due) for run_id, due, *_ in rows)
        return Refill(queued, None if due >= q.NEVER else due, holds_back)

    def _rows(self, query: q.Query, params: Params) -> list[Row]:
        return self._execute(query, params).fetchall()

    def _execute(self, query: q.Query, params: Params) -> sqlite3.Cursor:
        if self._connection is None:
            self._connection = self._connect()
            self._connection.execute("PRAGMA query_only = ON")
        compiled = self._compiler(query)
        return self._connection.execute(compiled.text, compiled.bind(params))

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


def _is_locked(error: sqlite3.Error) -> bool:
    """Somebody else is writing. The low byte is the kind of error, what is above it says which of a kind."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _unavailable(error: BaseException) -> BaseException:
    """Locked, full, read-only, I/O error, damaged: not the operation's fault. What breaks a constraint is."""
    if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
        return StoreUnavailable(str(error))
    return error
