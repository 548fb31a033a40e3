"""The skeleton of every service: `run_once`, again and again."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, TypeAlias

from ..clock import Clock, SystemClock
from ..core.services import ServiceBoard, ServiceState
from ..errors import RunlaneError

logger = logging.getLogger("runlane.services")

#: What a run has done, by name.
Counts: TypeAlias = Mapping[str, int]

#: A sleep is so much longer or shorter, at random: services of one interval should not all wake at once.
JITTER: Final = 0.1
#: What is due at once is done after so many seconds, together with what comes due meanwhile.
SHORTEST_SLEEP: Final = 0.05
#: A service that fails waits up to so many intervals, or so many seconds.
_LONGEST_BACKOFF: Final = 64
_LONGEST_WAIT: Final = 60.0


class Service(ABC):
    """Calls `run_once` every `interval` seconds or so. Starting or stopping twice is harmless.

    A pass that knows when the next one has something to do says so in `_next`, and that one comes sooner.
    What goes wrong is counted and logged, and the next try waits longer; nothing ends the service but `stop`.
    """

    #: How it is called where services are shown.
    name: str

    def __init__(self, interval: float, clock: Clock | None = None, *, enabled: bool = True) -> None:
        self._clock = clock or SystemClock()
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        #: Seconds until there is something to do, as the last pass knew; None: it could not tell. Never more than
        #: the interval is slept all the same: there may be news that no pass has seen.
        self._next: float | None = None
        self._random = random.Random()
        self._failures = 0
        self.state = ServiceState(self.name, interval, enabled)

    @abstractmethod
    async def run_once(self) -> Counts:
        """Do the work once and return what was done, for tests and whoever looks."""

    def start(self) -> None:
        """Begin, on the running event loop, unless it is switched off."""
        if self._task is None and self.state.enabled:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=type(self).__name__)
            self.state.running = True

    async def stop(self) -> None:
        """End, and wait for it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            self.state.running = False

    def wake(self) -> None:
        """There is something to do: end the sleep."""
        self._woken.set()

    def pause(self) -> float:
        """Return how long to sleep until there may be something to do, in seconds."""
        interval = self.state.interval
        if self._failures:
            interval = max(interval, min(interval * min(2**self._failures, _LONGEST_BACKOFF), _LONGEST_WAIT))
        elif self._next is not None and self._next < interval:
            return max(self._next, SHORTEST_SLEEP) * (1 + JITTER * self._random.random())  # never too early
        return interval * (1 + JITTER * (2 * self._random.random() - 1))

    async def attempt(self) -> None:
        """Run once, and note how it went."""
        at, began = self._clock.now(), self._clock.monotonic()
        self._next = None
        try:
            counts = await self.run_once()
        except Exception as exc:  # one bad pass must not end the service
            self._failures += 1
            self.state.failed(at, self._clock.monotonic() - began, exc)
            if isinstance(exc, RunlaneError):
                logger.warning("%s failed: %s", self.name, exc)
            else:
                logger.exception("%s failed", self.name)
        else:
            self._failures = 0
            self.state.ran(at, self._clock.monotonic() - began, counts)

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pause()):
                    await self._woken.wait()
            self._woken.clear()
            await self.attempt()


class Services:
    """All services of a broker, started and stopped together."""

    def __init__(self, services: Iterable[Service], board: ServiceBoard) -> None:
        self._services = tuple(services)
        for service in self._services:
            board.add(service.state)

    def start(self) -> None:
        """Start those that are not switched off."""
        for service in self._services:
            service.start()

    async def stop(self) -> None:
        """Stop them all."""
        for service in self._services:
            await service.stop()
