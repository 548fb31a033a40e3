"""Whether a peer takes what it is sent: a ping behind it, and the pong that its end answers with.

Bytes that were written say little: the two kernels keep hundreds of kilobytes for a peer that reads none of them,
and making these costs more than all that hostile peers can do otherwise.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from .extensions import ExtensibleProtocol, offered

#: The ASGI extension: its `probe` is the connection's `Probe`.
EXTENSION: Final = "runlane.probe"
#: Bytes of a ping's payload, which nobody guesses.
_PAYLOAD_BYTES: Final = 8


class Probe:
    """Asks the peer of one connection. `ping` sends a payload; without it every peer takes everything."""

    def __init__(self, ping: Callable[[bytes], None] | None = None) -> None:
        self._ping = ping
        self._payload = b""
        self._answered = asyncio.Event()

    async def taken(self) -> None:
        """Wait until the peer has taken all that it was sent; for ever if it takes nothing, or is gone."""
        if self._ping is None:
            return
        self._answered.clear()
        self._payload = secrets.token_bytes(_PAYLOAD_BYTES)
        self._ping(self._payload)
        await self._answered.wait()

    def ponged(self, payload: bytes, later: bytes | None) -> None:
        """A pong came. It may be the one to a later ping: who has several to answer need only answer the last."""
        if payload in (self._payload, later):
            self._answered.set()


class Credit:
    """How many pages are sent to a peer before it has shown that it takes them: one, then twice as many each time.

    `most` bounds what goes out between two answers.
    """

    def __init__(self, probe: Probe, most: int) -> None:
        self._probe = probe
        self._limit = 1
        self._most = most
        self._used = 0

    async def use(self) -> None:
        """Note a page that was sent; if it was the last there is, wait until the peer has it, perhaps for ever."""
        self._used += 1
        if self._used >= self._limit:
            await self._probe.taken()
            self._used = 0
            self._limit = min(2 * self._limit, self._most)


class ProbeProtocol(ExtensibleProtocol):
    """uvicorn's protocol, with a `Probe` in its scope."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Offer it."""
        super().connection_made(transport)
        self._probe = Probe(partial(_ping, self.conn, self.transport))
        self.offer(EXTENSION, probe=self._probe)

    def handle_pong(self, event: Frame) -> None:
        """Tell who waits for it."""
        self._probe.ponged(bytes(event.data), self.pending_ping_payload)
        super().handle_pong(event)


def _ping(conn: ServerProtocol, transport: asyncio.Transport, payload: bytes) -> None:
    if conn.state is State.OPEN and not transport.is_closing():  # else whoever waits is told by `receive`
        conn.send_ping(payload)
        transport.write(b"".join(conn.data_to_send()))


def probe_of(scope: Mapping[str, Any]) -> Probe:
    """Return that of a connection; where its server has none, one that believes everybody."""
    return offered(scope, EXTENSION).get("probe") or Probe()
