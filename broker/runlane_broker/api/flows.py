"""`/api/flows`: what flow runs are runs of."""

from __future__ import annotations

from typing import Final

from ..clock import to_datetime
from ..core.core import Core
from ..errors import NotFound
from ..schemas.flows import Flow, FlowCreate, FlowPage, FlowUpdate
from ..schemas.lists import FlowList, FlowPages, FlowRunFilters
from ..storage.flow_records import FlowRecord
from .listing import Listed, Lists, list_routes
from .routes import Answer, Route

_TAG = "flows"


class Flows:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, body: FlowCreate) -> Answer:
        """Create a flow, or return the one with this name."""
        made = await self._core.flows.create(body.name, body.tags, body.labels or {})
        return Answer(201 if made.created else 200, await self.read(made.id))

    async def read(self, id: str) -> Flow:
        """Return a flow."""
        return _shown(await self._core.store.flows.flow(id))

    async def read_by_name(self, name: str) -> Flow:
        """Return the flow with a name."""
        return _shown(await self._core.store.flows.flow_by_name(name))

    async def update(self, id: str, body: FlowUpdate) -> None:
        """Change a flow."""
        if body.tags is None:
            await self.read(id)
        else:
            await self._core.flows.update(id, body.tags)

    async def delete(self, id: str) -> None:
        """Delete a flow."""
        await self._core.flows.delete(id)


def _shown(flow: FlowRecord | None) -> Flow:
    if flow is None:
        raise NotFound("Flow not found")
    return render_flow(flow)


def render_flow(flow: FlowRecord) -> Flow:
    """Return a flow as it is shown."""
    return Flow(
        id=flow.id,
        created=to_datetime(flow.created),
        updated=to_datetime(flow.updated),
        name=flow.name,
        tags=flow.tags,
        labels=flow.labels,
    )


LISTED: Final = Listed(
    path="/api/flows",
    noun="flow",
    render=render_flow,
    shown=Flow,
    filters=FlowRunFilters,
    listed=FlowList,
    paged=FlowPages,
    page=FlowPage,
)


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    flows = Flows(core)
    gone = {404: "There is no such flow"}
    return [
        Route(
            method="POST",
            path="/api/flows/",
            handler=flows.create,
            summary="Create a flow, or return the one with this name",
            tag=_TAG,
            answers={201: Flow, 200: Flow},
            body=FlowCreate,
        ),
        Route(
            method="GET",
            path="/api/flows/{id:uuid}",
            handler=flows.read,
            summary="Read a flow",
            tag=_TAG,
            answers={200: Flow},
            refusals=gone,
        ),
        Route(
            method="GET",
            path="/api/flows/name/{name}",
            handler=flows.read_by_name,
            summary="Read a flow by its name",
            tag=_TAG,
            answers={200: Flow},
            refusals=gone,
        ),
        Route(
            method="PATCH",
            path="/api/flows/{id:uuid}",
            handler=flows.update,
            summary="Change a flow's tags",
            tag=_TAG,
            answers={204: None},
            refusals=gone,
            body=FlowUpdate,
        ),
        Route(
            method="DELETE",
            path="/api/flows/{id:uuid}",
            handler=flows.delete,
            summary="Delete a flow with its deployments and runs",
            tag=_TAG,
            answers={204: None},
            refusals=gone,
        ),
        *list_routes(Lists(core.store.lists.flows, LISTED), LISTED),
    ]
