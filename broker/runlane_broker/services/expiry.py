"""Ends what has expired."""

from __future__ import annotations

from ..core.core import Core
from .service import Counts, Service


class Expire(Service):
    """Cancels runs that wait and are not to be started any more."""

    name = "expiry"

    def __init__(self, core: Core) -> None:
        settings = core.settings.services
        super().__init__(settings.expiry_interval, core.clock, enabled=settings.expiry)
        self._expiry = core.expiry

    async def run_once(self) -> Counts:
        """One pass over all that has expired; nothing is written where nothing has."""
        due = await self._expiry.next_in()
        ended = 0
        if due == 0:
            ended = await self._expiry.end()
            due = await self._expiry.next_in()
        self._next = due
        return {"expired": ended}
