"""Notes each request and the status of its answer, of Runlane and of a Prefect server: needs nothing installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Recorder:
    """An ASGI middleware. A socket's status is 101 once it is accepted."""

    def __init__(self, app: Any, record: Path) -> None:
        self._app = app
        self._file = record.open("a", buffering=1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        method = "WS" if scope["type"] == "websocket" else scope.get("method")

        async def note(message: Any) -> None:
            status = message.get("status", 101 if message["type"] == "websocket.accept" else None)
            if status is not None:
                query = scope["query_string"].decode()
                self._file.write(json.dumps([method, scope["path"], query, status]) + "\n")
            await send(message)

        await self._app(scope, receive, note)
