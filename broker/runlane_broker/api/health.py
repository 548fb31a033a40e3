"""`/livez`, `/readyz` and `/api/version`: open to anybody."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ..core.core import Core
from .http import json


class Health:
    """The routes, on one core."""

    def __init__(self, core: Core, version: str) -> None:
        self._core = core
        self._version = version

    async def livez(self, _request: Request) -> Response:
        """200 as soon as the event loop answers."""
        return json({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        """200 while runs are taken and dispatched; 503 before recovery and while draining."""
        if self._core.ready:
            return json({"status": "ready"})
        return json({"status": "not ready"}, 503, {"Retry-After": "1"})

    async def version(self, _request: Request) -> Response:
        """The broker's version, as a JSON string."""
        return json(self._version)
