"""What a WebSocket can do here beyond ASGI: offered in its scope, as ASGI's extensions are."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request


class ExtensibleProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with a scope that holds more extensions than its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._offered: dict[str, dict[object, object]] = {}

    def offer(self, name: str, **contents: Any) -> None:
        """Have the application find an extension of this name, and in it these. To be called before it begins.

        They refer to the transport, which lets go of us at the end, and not to us: nothing goes round then.
        """
        self._offered[name] = {**contents}

    def handle_connect(self, event: Request) -> None:
        """Make the scope."""
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:  # the application has not begun yet
            self.scope["extensions"] = {**(self.scope.get("extensions") or {}), **self._offered}


def offered(scope: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return what an extension holds; nothing where the server has none of this name."""
    extensions: Mapping[str, Mapping[str, Any]] = scope.get("extensions") or {}
    return extensions.get(name) or {}
