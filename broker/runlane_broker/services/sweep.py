"""Ends what is silent, deaf or lost."""

from __future__ import annotations

from ..core.supervision import Supervision, Swept
from .service import Service


class Sweep(Service):
    """Looks at all sessions' deadlines."""

    def __init__(self, interval: float, supervision: Supervision) -> None:
        super().__init__(interval)
        self._supervision = supervision

    async def run_once(self) -> Swept:
        """One pass."""
        return self._supervision.sweep()
