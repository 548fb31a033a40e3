"""Looks out for runs that nobody comes for."""

from __future__ import annotations

from ..core.unserved import PATIENCE_SECONDS, Unserved
from .service import Counts, Service


class Lookout(Service):
    """Warns of keys that no worker serves."""

    name = "unserved_keys"

    def __init__(self, unserved: Unserved) -> None:
        super().__init__(PATIENCE_SECONDS / 2)
        self._unserved = unserved

    async def run_once(self) -> Counts:
        """One look."""
        return {"warned": len(await self._unserved.look())}
