"""Looks for mistakes of the broker's own."""

from __future__ import annotations

from collections import Counter

from ..core.core import Core
from .service import Counts, Service


class Auditor(Service):
    """Compares memory with the database. All that it counts should be 0, and stay 0."""

    name = "auditor"

    def __init__(self, core: Core) -> None:
        settings = core.settings.services
        super().__init__(settings.audit_interval, core.clock, enabled=settings.audit)
        self._audit = core.audit

    async def run_once(self) -> Counts:
        """One look at everything; each difference that was found and set right, by kind."""
        found = Counter(difference.kind.name.lower() for difference in await self._audit.run())
        return {"differences": found.total(), **found}
