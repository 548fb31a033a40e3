"""Larger messages, on a connection whose application takes them; all others are bound as the server has it."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, Final

from websockets.server import ServerProtocol

from .extensions import ExtensibleProtocol, offered

#: The name of the ASGI extension; its `allow` sets the limit of a connection, in bytes.
EXTENSION: Final = "runlane.message_size"


class SizedProtocol(ExtensibleProtocol):
    """uvicorn's protocol, with the limit of its messages in the application's hands."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.offer(EXTENSION, allow=partial(_allow, self.conn))


def _allow(conn: ServerProtocol, size: int) -> None:
    conn.max_message_size = size


def allow_messages(scope: MutableMapping[str, Any], size: int) -> None:
    """Take messages of so many bytes from now on. Without effect where the server has no such extension."""
    allow: Callable[[int], None] | None = offered(scope, EXTENSION).get("allow")
    if allow is not None:
        allow(size)
