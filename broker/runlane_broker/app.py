"""The whole wiring on one screen."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from runlane import __version__
from runlane.protocol.ids import uuid7

from .access import Access, AccessMiddleware
from .api import (
    cancel,
    concurrency_limits,
    deployments,
    flow_runs,
    flows,
    health,
    openapi,
    services,
    slots,
    task_runs,
    task_workers,
    work_pools,
    work_queues,
)
from .api.errors import EXCEPTION_HANDLERS
from .api.routes import Route, starlette_routes
from .clock import Clock
from .core.core import Core
from .gateway.submission import SubmissionConnection
from .gateway.worker import WorkerConnection
from .prefect.routes import event_sockets, prefect_routes
from .prefect.socket import TakerConnection
from .services.audit import Auditor
from .services.expiry import Expire
from .services.heartbeat import Heartbeat
from .services.late_runs import MarkLateRuns
from .services.lookout import Lookout
from .services.queue_status import QueueStatuses
from .services.retention import Retain
from .services.service import Services
from .services.sweep import Sweep
from .settings import Settings
from .storage.records import Backlog
from .storage.store import Store

logger = logging.getLogger("runlane")


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that runs: its core, and what it found in the database."""

    core: Core
    backlog: Backlog


@asynccontextmanager
async def running_broker(settings: Settings, path: Path, clock: Clock) -> AsyncGenerator[Broker]:
    """Open the database, recover, start the services; undo it in reverse. Starting is recovering: one path."""
    broker_id = uuid7()
    store = Store.sqlite(path, clock, broker_id)
    core = Core(broker_id, __version__, settings, clock, store)
    try:
        backlog = await core.start()
        services = Services(
            (
                Sweep(core),
                Heartbeat(settings.timers.heartbeat, core),
                MarkLateRuns(core),
                Expire(core),
                QueueStatuses(core),
                Retain(core),
                Auditor(core),
                Lookout(core.unserved),
            ),
            core.services,
        )
        services.start()
        try:
            yield Broker(core, backlog)
        finally:
            await services.stop()
    finally:
        await core.close()


def api_routes(core: Core, others: Sequence[Route] = ()) -> list[Route]:
    """Return every route of the HTTP API, with those of its own description, and of `others`, last."""
    routes = [
        *health.routes(core, __version__),
        *task_runs.routes(core),
        *cancel.routes(core),
        *flow_runs.routes(core),
        *flows.routes(core),
        *deployments.routes(core),
        *concurrency_limits.routes(core),
        *task_workers.routes(core),
    ]
    routes += [*work_queues.routes(core), *work_pools.routes(core), *slots.routes(core), *services.routes(core)]
    return [*routes, *openapi.routes([*routes, *others], __version__)]


def create_app(core: Core) -> Starlette:
    """Return the ASGI application of a running broker."""
    access = Access(core.settings.token)
    of_prefect = prefect_routes(core)

    async def worker_socket(socket: WebSocket) -> None:
        if TakerConnection.speaks(socket.scope["subprotocols"]):
            await TakerConnection(socket, core, access).run()
        else:
            await WorkerConnection(socket, core, access).run()

    async def submission_socket(socket: WebSocket) -> None:
        await SubmissionConnection(socket, core, access).run()

    return Starlette(
        routes=[
            *starlette_routes([*api_routes(core, of_prefect), *of_prefect]),
            *event_sockets(core, access),
            WebSocketRoute("/api/task_runs/subscriptions/scheduled", worker_socket),
            WebSocketRoute("/api/task_runs/submissions", submission_socket),
        ],
        middleware=[Middleware(AccessMiddleware, access=access)],
        exception_handlers=EXCEPTION_HANDLERS,
    )
