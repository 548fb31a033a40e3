"""Connections: frames in order, late, and cut at any moment with nobody knowing what has arrived.

What TCP never does is not done here either: no frame is doubled, lost between two others, or overtaken. A `stall`
is a cable pulled out: what was sent meanwhile arrives when it is in again, if both sides are still there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

from starlette.websockets import WebSocketDisconnect

from runlane.protocol.messages import SUBPROTOCOL
from runlane_broker.access import AUTHENTICATED

from .loop import Process, VirtualLoop

#: What one side may have sent and the other not read, in messages, before sending waits.
_BUFFER: Final = 64


class End:
    """One side of a connection. `incoming` yields texts, and None at the end."""

    def __init__(self, link: Link, process: Process) -> None:
        self.link = link
        self.process = process
        self.incoming: asyncio.Queue[str | None] = asyncio.Queue()
        self.open = True
        self.ended = False  # nothing more arrives
        self.peer: End
        self._arrives = 0.0
        self._room = asyncio.Event()
        self._room.set()
        self._travelling: list[asyncio.TimerHandle] = []

    def send(self, text: str | None) -> None:
        """Put a message on its way; None closes."""
        if not self.open:
            return
        if text is None:
            self.open = False
        link = self.link
        at = max(
            link.loop.time() + link.latency(), self._arrives + 1e-6, link.stalled_until
        )  # timers have no order
        self._arrives = at
        peer = self.peer
        handle = link.loop.call_at(at, peer._take, text, context=peer.process.context)
        self._travelling = [h for h in self._travelling if not h.cancelled() and h.when() > link.loop.time()]
        self._travelling.append(handle)
        if len(self._travelling) >= _BUFFER:
            self._room.clear()
            link.loop.call_at(at, self._room.set)

    async def sent(self) -> None:
        """Wait for room."""
        await self._room.wait()

    def _take(self, text: str | None) -> None:
        if self.ended:
            return
        if text is None:
            self.ended, self.open = True, False
        self.incoming.put_nowait(text)

    def cut(self, arrived: int) -> None:
        """The connection breaks: of what is on its way to the peer, so many messages have arrived."""
        now = self.link.loop.time()
        travelling = [handle for handle in self._travelling if not handle.cancelled() and handle.when() > now]
        for handle in travelling[arrived:]:
            handle.cancel()
        at = max(now, self.link.stalled_until)
        if arrived:
            at = max(at, travelling[arrived - 1].when())
        self.open = False
        self.link.loop.call_at(at, self.peer._take, None, context=self.peer.process.context)

    @property
    def travelling(self) -> int:
        """How many messages are on their way to the peer."""
        now = self.link.loop.time()
        return sum(not handle.cancelled() and handle.when() > now for handle in self._travelling)


class Link:
    """A connection of a client to the broker."""

    def __init__(self, loop: VirtualLoop, source: random.Random, latency: Callable[[], float]) -> None:
        self.loop = loop
        self.latency = latency
        self.stalled_until = 0.0
        self._source = source
        self.client: End
        self.server: End

    @classmethod
    def between(
        cls,
        loop: VirtualLoop,
        client: Process,
        server: Process,
        source: random.Random,
        latency: Callable[[], float],
    ) -> Link:
        """Connect two processes. If one is killed, the other hears of it."""
        link = cls(loop, source, latency)
        link.client, link.server = End(link, client), End(link, server)
        link.client.peer, link.server.peer = link.server, link.client
        for process in (client, server):
            process.on_killed.append(link.cut)
        return link

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed it."""
        return self.client.open and self.server.open

    def cut(self) -> None:
        """Break it: of what is on its way in each direction a part has arrived, and nobody knows which."""
        if not (self.client.open or self.server.open):
            return
        parts = [self._source.randint(0, end.travelling) for end in (self.client, self.server)]
        for end, arrived in zip((self.client, self.server), parts, strict=True):
            end.cut(arrived)

    def stall(self, until: float) -> None:
        """Let nothing through until then. Nobody hears of it."""
        self.stalled_until = max(self.stalled_until, until)


class Socket:
    """The server's side, as the gateway wants it: the ASGI WebSocket of Starlette."""

    def __init__(self, end: End) -> None:
        self._end = end
        self.client = None  # nobody has an address here
        self.scope: dict[str, Any] = {"subprotocols": [SUBPROTOCOL], "state": {AUTHENTICATED: True}}

    async def accept(self, subprotocol: str) -> None:
        pass

    async def receive(self) -> dict[str, Any]:
        text = await self._end.incoming.get()
        if text is None:
            return {"type": "websocket.disconnect", "code": 1006}
        return {"type": "websocket.receive", "text": text}

    async def send(self, message: dict[str, Any]) -> None:
        if not self._end.open:
            raise WebSocketDisconnect(1006)
        self._end.send(message["text"])
        await self._end.sent()

    async def close(self, code: int, reason: str) -> None:
        self._end.send(None)
