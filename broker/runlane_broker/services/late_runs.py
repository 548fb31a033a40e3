"""Says which runs have not started in time."""

from __future__ import annotations

from ..core.core import Core
from .service import Counts, Service


class MarkLateRuns(Service):
    """Marks runs late, of both kinds."""

    name = "late_runs"

    def __init__(self, core: Core) -> None:
        settings = core.settings.services
        super().__init__(settings.late_interval, core.clock, enabled=settings.late)
        self._late = core.late

    async def run_once(self) -> Counts:
        """One pass over all that is overdue."""
        return {
            "task_runs": await self._late.mark_task_runs(),
            "flow_runs": await self._late.mark_flow_runs(),
        }
