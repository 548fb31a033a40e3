"""Notices which work queues nobody serves any more."""

from __future__ import annotations

from ..core.core import Core
from .service import Counts, Service


class QueueStatuses(Service):
    """Lets queues be NOT_READY that nobody has polled for a minute."""

    name = "queue_status"

    def __init__(self, core: Core) -> None:
        super().__init__(15.0, core.clock)
        self._queues = core.queues

    async def run_once(self) -> Counts:
        """One pass."""
        return {"not_ready": await self._queues.forget_polls()}
