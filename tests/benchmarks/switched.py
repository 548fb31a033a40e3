"""A broker whose services stand still until they are told to: `python -m tests.benchmarks.switched FILE SERVICE`.

Each line on its standard input is an order (`reset`: make what is Late wait again; `pass`: let the service do one
pass, and say whether there is more to do), and is answered by a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import event

from runlane.config import ServicesSection
from runlane_broker.app import create_app, running_broker
from runlane_broker.clock import SystemClock
from runlane_broker.core.core import Core
from runlane_broker.program import calm_garbage_collector
from runlane_broker.services.late_runs import MarkLateRuns
from runlane_broker.services.retention import Retain
from runlane_broker.serving.listening import bind, url_of
from runlane_broker.serving.server import serving
from runlane_broker.settings import Settings
from runlane_broker.storage.sqlite import SqliteTransaction

SERVICES: dict[str, type[MarkLateRuns | Retain]] = {"late": MarkLateRuns, "retention": Retain}


class Longest:
    """How long the longest statement took since it was last asked, in milliseconds. Waiting for a CPU counts."""

    def __init__(self) -> None:
        self.ms = 0.0

    def note(self, seconds: float) -> None:
        self.ms = max(self.ms, seconds * 1e3)

    def take(self) -> float:
        longest, self.ms = self.ms, 0.0
        return longest

    def watch_writer(self) -> None:
        for name in ("run", "rows", "flush"):
            inner = getattr(SqliteTransaction, name)

            def timed(tx: Any, *args: Any, inner: Any = inner) -> Any:
                start = time.perf_counter()
                try:
                    return inner(tx, *args)
                finally:
                    self.note(time.perf_counter() - start)

            setattr(SqliteTransaction, name, timed)

    def watch_reads(self, core: Core) -> None:
        started: dict[int, float] = {}
        engine = core.store._engine.sync_engine
        event.listen(engine, "before_cursor_execute", lambda c, *_: started.update({id(c): time.perf_counter()}))
        event.listen(
            engine, "after_cursor_execute", lambda c, *_: self.note(time.perf_counter() - started.pop(id(c)))
        )


@asynccontextmanager
async def served(path: Path, services: ServicesSection) -> AsyncGenerator[tuple[Core, str]]:
    settings = replace(Settings(port=0), services=services)
    listener = bind(settings.host, settings.port)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(running_broker(settings, path, SystemClock()))
        await stack.enter_async_context(serving(create_app(broker.core), listener))
        yield broker.core, url_of(listener)


def _reset(path: Path) -> int:
    with closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        return connection.execute(
            "UPDATE task_run SET state_name = 'Scheduled' WHERE state_name = 'Late'"
        ).rowcount


async def main(path: Path, name: str) -> None:
    """Serve, and obey."""
    longest = Longest()
    longest.watch_writer()
    old = 1.0 if name == "retention" else 0.0
    still = ServicesSection(late=False, expiry=False, audit=False, retention_interval=86_400.0)
    async with served(path, replace(still, keep_successes=old, keep_failures=old)) as (core, url):
        longest.watch_reads(core)
        calm_garbage_collector()  # or its pauses of 0.1 s, which a broker has not, would be found in statements
        service = SERVICES[name](core)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print(json.dumps({"url": url}), flush=True)
        while order := (await reader.readline()).decode().strip():
            longest.take()
            start = time.perf_counter()
            counts = {"reset": await asyncio.to_thread(_reset, path)} if order == "reset" else {}
            if order == "pass":
                counts = dict(await service.run_once())
            seconds = time.perf_counter() - start
            more = name == "late" or core.retention.has_more
            answer = {"seconds": seconds, "longest": longest.take(), "counts": counts, "more": more}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
