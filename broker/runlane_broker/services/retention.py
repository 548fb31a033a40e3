"""Forgets runs that ended long ago."""

from __future__ import annotations

from ..core.core import Core
from .service import Counts, Service


class Retain(Service):
    """Deletes old runs, where the settings say from when on they are old."""

    name = "retention"

    def __init__(self, core: Core) -> None:
        super().__init__(
            core.settings.services.retention_interval, core.clock, enabled=not core.retention.keeps_all
        )
        self._retention = core.retention

    async def run_once(self) -> Counts:
        """One pass."""
        counts = await self._retention.run()
        self._next = 0.0 if self._retention.has_more else None
        return counts
