"""Everything that is here for Prefect's clients."""

from __future__ import annotations

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from ..access import Access
from ..api.routes import Route
from ..core.core import Core
from . import blocks, lists, small_routes, tag_slots, values
from .events_in import EventsIn
from .events_out import EventsOut
from .feed import EndFeed


def prefect_routes(core: Core) -> list[Route]:
    """Return the routes of HTTP that only Prefect's clients ask for."""
    of_each = (small_routes, lists, blocks, values, tag_slots)
    return [route for one in of_each for route in one.routes(core)]


def event_sockets(core: Core, access: Access) -> list[WebSocketRoute]:
    """Return the sockets of events."""
    feed = EndFeed(core)

    async def events_in(socket: WebSocket) -> None:
        await EventsIn(socket, core, access).run()

    async def events_out(socket: WebSocket) -> None:
        await EventsOut(socket, feed, access, core.clock).run()

    return [WebSocketRoute("/api/events/in", events_in), WebSocketRoute("/api/events/out", events_out)]
