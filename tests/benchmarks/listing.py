"""Lists, counts and history of a million task runs, read as the edges read them."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import event

from runlane.protocol.ids import uuid7
from runlane.protocol.states import FINAL, StateType
from runlane_broker.clock import SystemClock
from runlane_broker.schemas.filters import ALL, Filters
from runlane_broker.schemas.sorts import TaskRunSort
from runlane_broker.storage.schema import upgrade
from runlane_broker.storage.store import Store
from runlane_broker.storage.tables import task_run

States = tuple[tuple[str, str, int], ...]

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
START: Final = 1_750_000_000 * SECOND
#: States and how many of a thousand runs are in them.
STATES: Final[States] = (
    ("COMPLETED", "Completed", 880),
    ("FAILED", "Failed", 40),
    ("CRASHED", "Crashed", 5),
    ("CANCELLED", "Cancelled", 5),
    ("SCHEDULED", "Scheduled", 50),
    ("SCHEDULED", "AwaitingRetry", 10),
    ("RUNNING", "Running", 5),
    ("PENDING", "Pending", 5),
)
Ask = Callable[[], Awaitable[Any]]


async def listing(runs: int, *, explain: bool) -> dict[str, float]:
    """How long each question takes: all runs were expected within one day."""
    with tempfile.TemporaryDirectory(prefix="runlane-bench-") as folder:
        path = Path(folder) / "bench.db"
        await asyncio.to_thread(fill, path, runs)
        store = Store.sqlite(path, SystemClock(), "bench")
        plans = Plans(store, path) if explain else None
        figures: dict[str, float] = {}
        for name, ask in _questions(store).items():
            if plans is not None:
                plans.clear()
            await ask()  # warm
            if plans is not None:
                plans.show(name)
            pause = asyncio.create_task(_longest_pause())
            start = time.perf_counter()
            await ask()
            figures[f"ms, {name}"] = (time.perf_counter() - start) * 1e3
            pause.cancel()
            figures["ms, longest pause of the loop"] = max(
                figures.get("ms, longest pause of the loop", 0.0), *(await asyncio.gather(pause))
            )
        await store.close()
        return figures


def _questions(store: Store) -> dict[str, Ask]:
    runs, now = store.task_runs, START + DAY
    questions: dict[str, Ask] = {"count of all": runs.count}
    for states in (("COMPLETED",), ("FAILED", "CRASHED"), ("RUNNING",)):
        by_state = {"state": {"type": {"any_": states}}}
        by_both = {**by_state, "task_key": {"any_": ["key.0"]}}
        for name, asked in (("", by_state), (", of a key", by_both)):
            filters = _filters(asked)
            what = " or ".join(states) + name
            questions[f"count of {what}"] = lambda f=filters: runs.count(f)
            questions[f"page of {what}"] = lambda f=filters: runs.list(f)
            questions[f"page of {what}, by end"] = lambda f=filters: runs.list(f, TaskRunSort.END_TIME_DESC)
    for sort in TaskRunSort:
        questions[f"page by {sort}"] = lambda s=sort: runs.list(ALL, s)
    for what, length in (("a day", DAY), ("a tenth of the day", DAY // 10), ("a hundredth", DAY // 100)):
        questions[f"history of {what}"] = lambda n=length: runs.history(START, START + n, n // 500, now)
    return questions


def _filters(asked: dict[str, Any]) -> Filters:
    return msgspec.convert({"task_runs": asked}, Filters)


async def _longest_pause() -> float:
    """Return, when it is cancelled, for how long nothing else could run, in milliseconds."""
    longest, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last - 0.001), now
    except asyncio.CancelledError:
        return longest * 1e3


class Plans:
    """Shows how SQLite goes about the statements of a question."""

    def __init__(self, store: Store, path: Path) -> None:
        self._statements: list[tuple[str, Any]] = []
        self._path = path
        event.listen(store._engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        self._statements.append((statement, values))

    def show(self, name: str) -> None:
        """Print the plans of what has been read since."""
        with closing(sqlite3.connect(self._path)) as connection:
            for statement, values in self._statements:
                steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
                print(f"  {name}: {'; '.join(steps)}")

    def clear(self) -> None:
        """Forget what has been read."""
        self._statements.clear()


# Rows --------------------------------------------------------------------------------------------------------


def fill(path: Path, runs: int, states: States = STATES) -> None:
    """Write the runs, and then the indexes: that is several times faster."""
    upgrade(path)
    columns = [column.name for column in task_run.c]
    marks = ", ".join("?" * len(columns))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master "
            "WHERE type = 'index' AND tbl_name LIKE 'task_run%' AND sql IS NOT NULL"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        rows = ([row.get(name) for name in columns] for row in _rows(runs, states))
        connection.executemany(f"INSERT INTO task_run ({', '.join(columns)}) VALUES ({marks})", rows)
        connection.execute(
            "INSERT INTO task_run_state (id, task_run_id, type, name, timestamp, attempt) "
            "SELECT state_id, id, state_type, state_name, state_timestamp, attempt FROM task_run"
        )
        connection.execute(
            "INSERT INTO task_run_payload (task_run_id, parameters) SELECT id, x'7b7d' FROM task_run"
        )
        for _, text in indexes:
            connection.execute(text)


def _rows(runs: int, shares: States) -> Iterator[dict[str, Any]]:
    source = random.Random(7)
    states = [(type_, name) for type_, name, share in shares for _ in range(share)]
    for i in range(runs):
        at = START + i * DAY // runs
        id_ = uuid7(at * 1000, source.getrandbits(62))
        type_, name = source.choice(states)
        key = f"key.{min(int(source.expovariate(0.5)), 19)}"
        started = None if type_ in {"SCHEDULED", "PENDING"} else at + source.randrange(SECOND)
        took = source.randrange(10 * SECOND)
        ended = started is not None and StateType(type_) in FINAL
        yield {
            "id": id_,
            "task_key": key,
            "name": key,
            "dynamic_key": id_,
            "priority": 0,
            "lane": 1,
            "due": at,
            "state_id": uuid7(at * 1000, source.getrandbits(62)),
            "state_type": type_,
            "state_name": name,
            "state_timestamp": at + 2 * SECOND,
            "attempt": 1,
            "failures": 0,
            "losses": 0,
            "run_count": 1,
            "retries": 0,
            "retry_delay": "[0.0]",
            "retry_jitter": 0.0,
            "tags": "[]" if i % 50 else '["a", "b"]',
            "headers": "{}",
            "payload_hash": bytes(32),
            "created": at,
            "updated": at,
            "expected_start_time": at,
            "start_time": started,
            "end_time": started + took if started is not None and ended else None,
            "total_run_time": took if ended else 0,
        }
