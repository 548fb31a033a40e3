"""A short way between a WebSocket and its application: no queue, no task to wake, for each message.

A worker that acknowledges each run costs a round trip a run, and what stands between its bytes and us costs more
than what we do with them. An application that never waits may ask for the messages themselves, and may write what
there is room for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.server import ServerProtocol

from .extensions import ExtensibleProtocol, offered

#: The name of the ASGI extension; it holds the `Direct` of the connection as "direct".
EXTENSION: Final = "runlane.direct"


class Direct:
    """One connection's short way."""

    def __init__(self, conn: ServerProtocol, transport: asyncio.Transport, writable: asyncio.Event) -> None:
        self._conn = conn
        self._transport = transport
        self._writable = writable
        #: Called with each text message while it is set, on the event loop; it must not raise. `receive` returns
        #: the others, and the end of the connection.
        self.take: Callable[[str], None] | None = None

    def send(self, data: bytes) -> bool:
        """Write a text message (UTF-8). False: there is no room now, or no connection; go the long way."""
        if not self._writable.is_set() or self._transport.is_closing():
            return False
        try:
            self._conn.send_text(data)
        except InvalidState:
            return False
        self._transport.write(b"".join(self._conn.data_to_send()))
        return True


class DirectProtocol(ExtensibleProtocol):
    """uvicorn's protocol, with `Direct` in its scope."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Offer it."""
        super().connection_made(transport)
        self._direct = Direct(self.conn, self.transport, self.writable)
        self.offer(EXTENSION, direct=self._direct)

    def handle_text(self, event: Frame) -> None:
        """Hand a whole message over, unless others still wait to be received."""
        take = self._direct.take
        if take is None or not event.fin or self.close_sent or not self.queue.empty():
            super().handle_text(event)
            return
        try:
            text = bytes(event.data).decode()
        except UnicodeDecodeError:
            super().handle_text(event)
        else:
            take(text)


def direct_way(scope: MutableMapping[str, Any]) -> Direct | None:
    """Return the short way of a connection; None: its server has none."""
    return offered(scope, EXTENSION).get("direct")
