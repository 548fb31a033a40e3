"""Ends what is silent, deaf or lost."""

from __future__ import annotations

from ..core.core import Core
from .service import Counts, Service


class Sweep(Service):
    """Looks at all sessions' deadlines."""

    name = "lost_sessions"

    def __init__(self, core: Core) -> None:
        settings = core.settings
        super().__init__(settings.timers.sweep, core.clock, enabled=settings.services.lost)
        self._supervision = core.supervision

    async def run_once(self) -> Counts:
        """One pass."""
        swept = self._supervision.sweep()
        return {"silent": swept.silent, "deaf": swept.deaf, "lost": swept.lost, "paused": int(swept.paused)}
