"""`/api/admin/services`: what the broker does on its own."""

from __future__ import annotations

from ..clock import to_datetime
from ..core.core import Core
from ..core.services import ServiceState
from ..schemas.services import ServiceShown
from .routes import Route


class Services:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def list(self) -> list[ServiceShown]:
        """Return all services."""
        return [_render(state) for state in self._core.services]


def _render(state: ServiceState) -> ServiceShown:
    return ServiceShown(
        name=state.name,
        enabled=state.enabled,
        running=state.running,
        interval_seconds=state.interval,
        runs=state.runs,
        errors=state.errors,
        last_run=None if state.last_run is None else to_datetime(state.last_run),
        last_run_seconds=state.last_seconds,
        last_error=state.last_error,
        counts=dict(state.counts),
        totals=dict(state.totals),
    )


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    services = Services(core)
    return [
        Route(
            method="GET",
            path="/api/admin/services",
            handler=services.list,
            summary="List what the broker does on its own",
            tag="admin",
            answers={200: list[ServiceShown]},
        )
    ]
