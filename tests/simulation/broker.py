"""A broker as a process: core, connections, sweep. It can be killed, paused and drained."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final
from unittest.mock import patch

from runlane.protocol.ids import uuid7
from runlane_broker.access import Access
from runlane_broker.clock import Micros
from runlane_broker.core.core import Core
from runlane_broker.core.differences import Difference
from runlane_broker.errors import StoreUnavailable
from runlane_broker.gateway.submission import SubmissionConnection
from runlane_broker.gateway.worker import WorkerConnection
from runlane_broker.settings import Settings

from ..support import SECOND, START
from .disk import Disk, SimulatedStore
from .loop import Process, VirtualLoop
from .network import Link, Socket

_ACCESS: Final = Access(None)


class VirtualClock:
    """The loop's time. The time of day may be set."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offset = 0.0

    def now(self) -> Micros:
        return START + round((self._loop.now + self.offset) * SECOND)

    def monotonic(self) -> float:
        return self._loop.now


class Chance:
    """Stands in for `secrets` and `uuid7` in the core: what they give depends on the seed alone."""

    def __init__(self, source: random.Random, clock: VirtualClock) -> None:
        self._source = source
        self._clock = clock

    def new_id(self) -> str:
        return uuid7(self._clock.now() * 1000, self._source.getrandbits(62))

    def token_urlsafe(self, size: int) -> str:
        return self._source.randbytes(size).hex()


def determined(chance: Chance) -> Any:
    """Have the core draw from `chance` while this context is open."""
    return patch.multiple("runlane_broker.core.sessions", secrets=chance, uuid7=chance.new_id)


class Broker:
    """One life of a broker. `ready` once it takes connections."""

    def __init__(
        self,
        process: Process,
        loop: VirtualLoop,
        clock: VirtualClock,
        disk: Disk,
        settings: Settings,
        chance: Chance,
    ) -> None:
        self.process = process
        self.ready = False
        self.ready_at = 0.0
        self.stopping = False
        self._loop = loop
        self._clock = clock
        self._disk = disk
        self._settings = settings
        self._chance = chance
        self.core: Core
        #: What the auditor has found.
        self.differences: list[Difference] = []
        process.spawn(self._run())

    async def _run(self) -> None:
        broker_id = self._chance.new_id()
        source = random.Random(broker_id)
        while True:
            store = SimulatedStore(self._disk, self._clock, broker_id, source)
            self.core = Core(broker_id, "1.0", self._settings, self._clock, store)
            try:
                await self.core.start()
                break
            except Exception:  # the database is away: the supervisor starts it again
                await asyncio.sleep(0.5)
        self.ready, self.ready_at = True, self._loop.now
        if source.random() < 0.5:
            self.process.spawn(self._audit(source))
        while True:
            await asyncio.sleep(self._settings.timers.sweep * source.uniform(0.9, 1.1))
            self.core.supervision.sweep()

    async def _audit(self, source: random.Random) -> None:
        """Have memory and database compared all the time: no difference may ever be found."""
        while True:
            await asyncio.sleep(source.uniform(1.0, 5.0))
            with suppress(StoreUnavailable):
                self.differences += await self.core.audit.run()

    def accept(self, link: Link, *, worker: bool) -> None:
        """Serve a connection. Called in the context of the process."""
        kind: Any = WorkerConnection if worker else SubmissionConnection
        connection = kind(Socket(link.server), self.core, _ACCESS)
        task = self._loop.create_task(connection.run())
        task.add_done_callback(lambda _: link.server.send(None))

    def call(self, question: Callable[[Core], Coroutine[Any, Any, Any]], answered: Callable[[Any], None]) -> None:
        """Ask something over HTTP. A broker that dies meanwhile never answers."""

        async def ask() -> None:
            try:
                answer = await question(self.core)
            except Exception as exc:
                answer = exc
            answered(answer)

        self.process.spawn(ask())

    async def stop(self) -> None:
        """SIGTERM: drain for a moment, and end."""
        self.core.drain()
        await asyncio.sleep(self._settings.timers.drain)
        await self.core.close()
        self.process.kill()
