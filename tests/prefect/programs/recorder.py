"""Notes each request and the status of its answer, of Runlane and of a Prefect server: needs nothing installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_STATUS = {"websocket.accept": 101, "websocket.close": 403}


class Recorder:
    """An ASGI middleware. A socket's status is 101 once it is accepted, and 403 if it is not."""

    def __init__(self, app: Any, record: Path) -> None:
        self._app = app
        self._file = record.open("a", buffering=1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        method = "WS" if scope["type"] == "websocket" else scope.get("method")
        answered = False

        async def note(message: Any) -> None:
            nonlocal answered
            status = message.get("status", _STATUS.get(message["type"]))
            if status is not None and not answered:
                answered = True
                query = scope["query_string"].decode()
                self._file.write(json.dumps([method, scope["path"], query, status]) + "\n")
            await send(message)

        await self._app(scope, receive, note)
