"""uvicorn's protocols, with an end to each wait for a peer, and turns for strangers, that has none there.

And without a traceback of its.
"""

from __future__ import annotations

import asyncio
import math
import random
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from websockets.exceptions import InvalidState
from websockets.http11 import Request

from .buffers import SEND_BUFFER, STRANGERS_BUFFER, keep
from .corking import Corked
from .extensions import ExtensibleProtocol
from .turns import EXTENSION, Standing, Turns

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as HTTPProtocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as HTTPProtocol

#: Who has connected, or begun a request, has this long for the request's head. Seconds.
HEAD_SECONDS: Final = 5.0
#: Who is sent a close frame has this long to take it and to answer. Seconds.
CLOSE_SECONDS: Final = 1.0
#: Who has said nothing for so long is heard at once, turn or no turn: a pong of an idle peer, mostly. Seconds.
QUIET_SECONDS: Final = 1.0

#: Pings of a peer within one second; nobody needs more than one.
MAX_PINGS: Final = 1000
#: Bytes of a peer that are parsed in one go: they may be a hundred messages. Then others have their turn.
SLICE_BYTES: Final = 4096
#: As many of one that has to wait for its turns.
SMALL_SLICE_BYTES: Final = 1024
#: As many of one that talks in vain: what is in these is taken in one turn.
TINY_SLICE_BYTES: Final = 512
#: A peer is pinged so much sooner at most, by a time of its own: those who once spoke together, when the broker
#: came back perhaps, would answer together for ever. Seconds.
_SOONER: Final = 3.0
#: Bytes that are looked through, after a close frame was sent, for the peer's own.
MAX_AFTER_CLOSE: Final = 64 * 1024

#: What is answered to an upgrade with a body, too long a line, or too many of them.
_BAD_HEAD: Final = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 49\r\n"
    b"Connection: close\r\n"
    b"\r\n"
    b"a WebSocket's request has a short head, no body.\n"
)


class PromptHTTP(HTTPProtocol):
    """Does not wait for a request's head for as long as somebody keeps the connection open."""

    _deadline: asyncio.TimerHandle | None = None
    _upgraded = False

    def __init__(self, *args: Any, turns: Turns, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turns = turns

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The peer owes a request."""
        self._uncorked = transport
        super().connection_made(cast("asyncio.Transport", Corked(transport)))
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """See whether the head is complete."""
        super().data_received(data)
        if self._upgraded:
            return
        cycle = getattr(self, "cycle", None)  # there is none before the first request
        if cycle is None or cycle.response_complete:
            self._expect_head()
        else:
            self._expect_nothing()

    def handle_websocket_upgrade(self, *args: Any) -> None:
        """From here on it is the WebSocket's, when it is its turn: thousands may come back at once."""
        self._upgraded = True
        self._expect_nothing()
        self._uncorked.pause_reading()
        self._turns.call(partial(self._upgrade, *args))

    def _upgrade(self, *args: Any) -> None:
        if self._uncorked.is_closing():
            return
        self.transport = self._uncorked
        super().handle_websocket_upgrade(*args)  # h11's gives it the request
        vars(self).pop("parser", None)  # httptools': it refers to us, and we are done
        self._uncorked.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody owes anything any more."""
        self._expect_nothing()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = asyncio.get_running_loop().call_later(HEAD_SECONDS, self.transport.close)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class PromptWebSocket(ExtensibleProtocol):
    """Does not wait for a peer that was closed to take what was sent.

    It pings whoever has said nothing for a while, and nobody else.
    """

    _deadline: asyncio.TimerHandle | None = None
    _second = 0
    _pings = 0
    _rest = b""
    _parsed = 0
    _going_on = False
    _after_close = 0
    _heard = math.inf

    def __init__(self, *args: Any, turns: Turns, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turns = turns
        self._sooner = random.uniform(0, _SOONER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell the application how it stands."""
        super().connection_made(transport)
        self._standing = Standing(self._turns, partial(keep, self.transport, SEND_BUFFER))
        self.offer(EXTENSION, standing=self._standing)

    def handle_connect(self, event: Request) -> None:
        """Keep little for it: it is a stranger."""
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            keep(self.transport, STRANGERS_BUFFER)

    async def run_asgi(self) -> None:
        """Serve the connection; then it has a moment to go by itself, unless it takes nothing any more."""
        await self._turns.next()
        try:
            await super().run_asgi()
        finally:
            if not self.writable.is_set():
                self.transport.abort()
            elif not self.disconnected:
                self._deadline = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.transport.abort)
                self._next()  # until the peer's close frame

    def data_received(self, data: bytes) -> None:
        """Take bytes, a slice at a time; nothing more is read until all of them are parsed."""
        now = self.loop.time()
        quiet = now - self._heard > QUIET_SECONDS
        self._heard = now
        under_way = bool(self._rest)
        self._rest = self._rest[self._parsed :] + data
        self._parsed = 0
        if under_way:
            self._read_no_more()
        elif self._standing.waits and not quiet:
            self._read_no_more()
            self._soon_go_on()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Parse a slice; the next one when the application has taken what was in this one."""
        self._going_on = False
        if self.disconnected or self.transport.is_closing():
            self._rest = b""
            return
        size = self._slice()
        data = self._rest[self._parsed : self._parsed + size]
        self._parsed += size
        if self._parsed >= len(self._rest):
            self._rest = b""
        self._parse(data)
        if self._rest:
            self._read_no_more()
        self._next()

    def _slice(self) -> int:
        if not self._standing.waits:
            return SLICE_BYTES
        return TINY_SLICE_BYTES if self._standing.vain else SMALL_SLICE_BYTES

    def _next(self) -> None:
        """Go on, or read on, unless the application has something to take first."""
        if not self.queue.empty() and not self.close_sent:
            return
        if self._takes_nothing():
            self._read_no_more()
        elif self._rest:
            self._soon_go_on()
        elif self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def _takes_nothing(self) -> bool:
        """Whether nothing more is heard from it until it takes what it was sent. Of those that wait for turns."""
        return self._standing.waits and not self.writable.is_set() and not self.close_sent

    def resume_writing(self) -> None:
        """It takes something: hear it again."""
        super().resume_writing()
        self._next()

    def _soon_go_on(self) -> None:
        if self._going_on:
            return
        self._going_on = True
        if self._standing.waits:
            self._standing.call(self._go_on)
        else:
            self.loop.call_soon(self._go_on)

    def _read_no_more(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def receive(self) -> Any:
        """Return the next message; go on if it was the last that has come."""
        message = await self.queue.get()
        if not self._standing.vain:  # else it has waited for the turn in which it was parsed
            await self._standing.turn()
        self._next()
        return message

    def _parse(self, data: bytes) -> None:
        """Parse. Text that is none, with a close frame right behind it, is more than uvicorn can bear."""
        if self.close_sent:
            self._after_close += len(data)
            if self._after_close + len(self._rest) - self._parsed > MAX_AFTER_CLOSE:
                self._rest = b""
                self.transport.abort()
                return
        try:
            super().data_received(data)
        except InvalidState:
            self.handle_parser_exception()
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            self._refuse_head()

    def _refuse_head(self) -> None:
        """Answer a head that the library will not have: uvicorn would leave its sender waiting for ever."""
        self.transport.write(_BAD_HEAD)
        self.transport.close()

    def schedule_ping(self) -> None:
        """Have the peer asked whether it is there when it will have said nothing for so long, or a little sooner.

        On a whole second, with all others that are asked then: a wake-up costs more than a ping.
        """
        self.ping_timer = self.loop.call_at(self._ping_at(), self.send_keepalive_ping)

    def send_keepalive_ping(self) -> None:
        """Ask, unless it has shown that since: there may be hundreds that send beats."""
        if self._ping_at() > self.loop.time():
            self.schedule_ping()
        else:
            super().send_keepalive_ping()

    def _ping_at(self) -> float:
        assert self.ping_interval is not None
        return math.floor(self._heard + self.ping_interval - self._sooner)

    def handle_ping(self) -> None:
        """Answer. Who does nothing else is cut off."""
        second = int(self.loop.time())
        self._pings = self._pings + 1 if second == self._second else 1
        self._second = second
        if self._pings > MAX_PINGS:
            self.transport.abort()
        super().handle_ping()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)
        self._fall_apart()

    def _fall_apart(self) -> None:
        """Part what refers to each other, that it goes at once; it would wait for the garbage collector.

        That is the parser, a generator that holds its owner, and what was wrong, whose tracebacks lead back here.
        """
        self.conn.parser.close()
        for error in (self.conn.handshake_exc, self.conn.parser_exc):
            _forget_frames(error)


def _forget_frames(error: BaseException | None) -> None:
    """Let go of where an error, and what has led to it, came up."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
