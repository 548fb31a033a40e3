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
        """One pass over all that is overdue; nothing is written where nothing is."""
        counts = {"task_runs": 0, "flow_runs": 0}
        due = await self._late.next_in()
        if due == 0:
            counts["task_runs"] = await self._late.mark_task_runs()
            counts["flow_runs"] = await self._late.mark_flow_runs()
            due = (
                await self._late.next_in() or None
            )  # still: what is overdue, and not late, is looked at in its turn
        self._next = due
        return counts
