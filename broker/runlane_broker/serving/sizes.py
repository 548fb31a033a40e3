"""Larger messages, on a connection whose application takes them; all others are bound as the server has it."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

#: The name of the ASGI extension; its `allow` sets the limit of a connection, in bytes.
EXTENSION: Final = "runlane.message_size"


class SizedProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with the limit of its messages in the application's hands."""

    def handle_connect(self, event: Request) -> None:
        """Offer the extension."""
        super().handle_connect(event)
        if self.response.status_code == 101:  # the application has not begun yet
            self.scope["extensions"] = {**(self.scope.get("extensions") or {}), EXTENSION: {"allow": self._allow}}

    def _allow(self, size: int) -> None:
        self.conn.max_message_size = size


def allow_messages(scope: MutableMapping[str, Any], size: int) -> None:
    """Take messages of so many bytes from now on. Without effect where the server has no such extension."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    offered: dict[str, Callable[[int], None]] = extensions.get(EXTENSION) or {}
    allow = offered.get("allow")
    if allow is not None:
        allow(size)
