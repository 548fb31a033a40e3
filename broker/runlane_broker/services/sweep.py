"""Ends what is silent, deaf or lost."""

from __future__ import annotations

from ..core.supervision import Supervision
from .service import Counts, Service


class Sweep(Service):
    """Looks at all sessions' deadlines."""

    name = "lost_sessions"

    def __init__(self, interval: float, supervision: Supervision) -> None:
        super().__init__(interval)
        self._supervision = supervision

    async def run_once(self) -> Counts:
        """One pass."""
        swept = self._supervision.sweep()
        return {"silent": swept.silent, "deaf": swept.deaf, "lost": swept.lost, "paused": int(swept.paused)}
