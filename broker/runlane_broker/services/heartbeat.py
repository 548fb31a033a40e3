"""Keeps the broker's row fresh."""

from __future__ import annotations

from ..core.core import Core
from .service import Service


class Heartbeat(Service):
    """Writes the time into the broker's row. The only statement of an idle broker."""

    def __init__(self, interval: float, core: Core) -> None:
        super().__init__(interval)
        self._core = core

    async def run_once(self) -> None:
        """One beat."""
        await self._core.beat()
