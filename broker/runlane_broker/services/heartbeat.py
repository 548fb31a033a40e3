"""Keeps the broker's row fresh."""

from __future__ import annotations

from ..core.core import Core
from .service import Counts, Service


class Heartbeat(Service):
    """Writes the time into the broker's row. The only statement of an idle broker."""

    name = "heartbeat"

    def __init__(self, interval: float, core: Core) -> None:
        super().__init__(interval, core.clock)
        self._core = core

    async def run_once(self) -> Counts:
        """One beat."""
        await self._core.beat()
        return {"beats": 1}

    def pause(self) -> float:
        """Never longer than usual: where nothing else is written, this is what finds the database back."""
        return self.state.interval
