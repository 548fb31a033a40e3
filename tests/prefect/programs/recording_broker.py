"""A broker as `runlane serve` starts it, that notes each request and its answer in the file RECORD."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from runlane_broker import logs, program
from runlane_broker.settings import load


class Recorder:
    """An ASGI middleware. A socket's status is 101 once it is accepted."""

    def __init__(self, app: ASGIApp, record: Path) -> None:
        self._app = app
        self._file = record.open("a", buffering=1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "WS" if scope["type"] == "websocket" else scope.get("method")

        async def note(message: Any) -> None:
            status = message.get("status", 101 if message["type"] == "websocket.accept" else None)
            if status is not None:
                query = scope["query_string"].decode()
                self._file.write(json.dumps([method, scope["path"], query, status]) + "\n")
            await send(message)

        await self._app(scope, receive, note)


def main() -> None:
    """Run the broker until it is told to stop."""
    create_app: Any = program.create_app
    record = Path(os.environ["RECORD"])
    program.create_app = lambda core: Recorder(create_app(core), record)  # type: ignore[assignment,return-value]
    settings = load(os.environ, dict(zip(("port", "db"), sys.argv[1:], strict=True)))
    logs.configure(settings.log_level, as_json=settings.log_format == "json")
    program.run_broker(settings)


if __name__ == "__main__":
    main()
