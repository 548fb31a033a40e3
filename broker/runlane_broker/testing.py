"""What `runlane.testing` needs of the broker: the production one, with a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from runlane import __version__
from runlane.protocol.ids import uuid7

from .clock import Micros
from .core.core import Core
from .services.sweep import Sweep
from .settings import Settings, Timers
from .storage.inspection import InspectedStore, Waiting
from .storage.schema import upgrade

#: Deadlines of sessions run by real time. Whoever stops in a debugger is not lost for that.
_TIMERS: Final = Timers(silent=3600.0, idle_silent=3600.0, start=3600.0)


class VirtualClock:
    """A time of day that stands still until it is moved. What is measured in seconds stays real."""

    def __init__(self, now: Micros) -> None:
        self._now = now

    def __repr__(self) -> str:
        return f"<VirtualClock {self._now}>"

    def now(self) -> Micros:
        """Return the time of day, in microseconds UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the machine's monotonic clock, in seconds."""
        return time.monotonic()

    def move_to(self, now: Micros) -> None:
        """Move it; it never goes back."""
        self._now = max(self._now, now)


class Changes:
    """Events that each happen once: who takes `next` before he looks will not miss what happens meanwhile."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def happened(self) -> None:
        """Wake whoever waits."""
        self.next.set()
        self.next = asyncio.Event()


@dataclass(frozen=True, slots=True)
class TestedBroker:
    """A broker that can be asked whether there is anything left to do. Belongs to its event loop."""

    core: Core
    store: InspectedStore
    clock: VirtualClock
    changes: Changes

    async def idle(self, task_keys: Sequence[str]) -> Waiting:
        """Wait until nothing of these keys is due and nothing is leased; return what waits for its time."""
        while True:
            change = self.changes.next
            if not self.core.holds_runs() and not self.store.waiting:
                waiting = await self.store.waiting_of(task_keys, self.clock.now())
                if not waiting.due and not waiting.leased:
                    return waiting
            await change.wait()

    def move_to(self, now: Micros) -> None:
        """Move the clock, and see to what comes due by that."""
        self.clock.move_to(now)
        self.core.dispatching.time_changed()


@asynccontextmanager
async def tested_broker(folder: Path, clock: VirtualClock) -> AsyncGenerator[TestedBroker]:
    """Run a broker on a new database in this folder. There is no heartbeat: no other broker could read it."""
    path = folder / "runlane.db"
    path.write_bytes(await asyncio.to_thread(_empty_database))
    broker_id = uuid7()
    changes = Changes()
    store = InspectedStore.of_test(path, clock, broker_id, changes.happened)
    settings = Settings(timers=_TIMERS)
    core = Core(broker_id, __version__, settings, clock, store)
    sweep = Sweep(core)
    try:
        await core.start()
        sweep.start()
        yield TestedBroker(core, store, clock, changes)
    finally:
        await sweep.stop()
        await core.close()


@cache
def _empty_database() -> bytes:
    """Return a database without a row: made once per process, for the migrations take their time."""
    with TemporaryDirectory(prefix="runlane-") as folder:
        path = Path(folder) / "empty.db"
        upgrade(path)
        return path.read_bytes()
