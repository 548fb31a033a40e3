"""The skeleton of every service: `run_once`, again and again."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

from ..errors import RunlaneError

logger = logging.getLogger("runlane.services")


class Service(ABC):
    """Calls `run_once` every `interval` seconds. Starting or stopping twice is harmless."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def run_once(self) -> object:
        """Do the work once and return what was done, for tests and logs."""

    def start(self) -> None:
        """Begin, on the running event loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=type(self).__name__)

    async def stop(self) -> None:
        """End, and wait for it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.run_once()
            except RunlaneError as exc:
                logger.warning("%s failed: %s", type(self).__name__, exc)
            except Exception:  # one bad pass must not end the service
                logger.exception("%s failed", type(self).__name__)
