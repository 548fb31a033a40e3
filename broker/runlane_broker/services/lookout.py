"""Looks out for runs that nobody comes for."""

from __future__ import annotations

from ..core.unserved import PATIENCE_SECONDS, Unserved
from .service import Service


class Lookout(Service):
    """Warns of keys that no worker serves."""

    def __init__(self, unserved: Unserved) -> None:
        super().__init__(PATIENCE_SECONDS / 2)
        self._unserved = unserved

    async def run_once(self) -> list[str]:
        """One look."""
        return self._unserved.look()
