"""`/api/events/out`: the ends of task runs, for the futures that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..access import Access
from ..clock import Clock
from ..errors import Invalid, StoreUnavailable
from ..gateway.endings import over
from ..gateway.talk import Talk
from ..serving.probes import Credit, probe_of
from ..serving.turns import standing_of
from .event_filters import Subscription, read_subscription
from .feed import EndEvent, EndFeed
from .handshake import POLICY_VIOLATION, TRY_AGAIN, open_socket, receive_text

#: Events that may wait for a client. One that is slower is told to come back: it gets what it has missed then.
_WAITING: Final = 20_000
#: How long a message may take to be taken, in seconds.
_WRITE_SECONDS: Final = 1.5
#: How long a client may take for what it gets of the past, which is no more than it asked for, in seconds.
_TAKE_SECONDS: Final = 3.0
#: Pages of the past that are read before the client has taken those before them, at most; none at first.
_PAGES_AHEAD: Final = 16
#: Events that are rendered and sent in one turn, of who has to wait for turns.
_IN_A_TURN: Final = 8
#: What a message costs after the filter: none is expected.
_VAIN_WORD: Final = 20.0
#: How long a closing connection may take to say so, in seconds.
_CLOSE_SECONDS: Final = 1.0


class EventsOut:
    """One connection: a filter comes in, events go out."""

    def __init__(self, socket: WebSocket, feed: EndFeed, access: Access, clock: Clock) -> None:
        self._socket = socket
        self._feed = feed
        self._access = access
        self._standing = standing_of(socket.scope)
        self._standing.trusted = False
        self._probe = probe_of(socket.scope)
        self._talk = Talk(clock.monotonic)
        self._waiting: list[EndEvent] = []
        self._wake = asyncio.Event()
        self._sent = 0
        self._takes = True
        self._failed = False

    async def run(self) -> None:
        """Serve the connection to its end."""
        try:
            if not await open_socket(self._socket, self._access):
                return
            try:
                subscription = read_subscription(await receive_text(self._socket))
            except Invalid as exc:
                await self._socket.close(POLICY_VIOLATION, exc.message[:120])
                return
            with self._feed.listening(self._ended):
                await self._serve(subscription)
        except (WebSocketDisconnect, RuntimeError, OSError):
            return  # it is gone

    def _ended(self, events: Sequence[EndEvent]) -> None:
        if len(self._waiting) < _WAITING:
            self._waiting.extend(events)
        self._wake.set()

    async def _serve(self, subscription: Subscription) -> None:
        leaving = asyncio.create_task(self._leave())
        sending = asyncio.create_task(self._send_in_time(subscription))
        try:
            await asyncio.wait((leaving, sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await over((leaving, sending))
        if self._takes and (self._failed or not self._talk.has_left):
            with suppress(TimeoutError):  # who takes nothing doesn't take this
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._socket.close(TRY_AGAIN, "come back")

    async def _leave(self) -> None:
        """Wait for the end of the connection; nothing else is expected, and little of it is borne."""
        while self._talk.spend(_VAIN_WORD):
            await receive_text(self._socket)
            self._standing.trusted = False
            self._standing.vain = not self._talk.is_sparing

    async def _send_in_time(self, subscription: Subscription) -> None:
        """Send, and say how it ended."""
        try:
            await self._send(subscription)
        except TimeoutError:
            self._takes = False
        except (StoreUnavailable, Invalid):
            self._failed = True

    async def _send(self, subscription: Subscription) -> None:
        """Send what has ended before, then what ends; what is both, once."""
        wanted = subscription.filter
        sent: set[str] = set()
        if subscription.backfill:
            credit = Credit(self._probe, _PAGES_AHEAD)
            await _in_time(self._probe.taken())  # what is read for one who takes nothing is read in vain
            async for events in self._feed.before(wanted.since):
                await self._standing.turn()
                for event in events:
                    sent.add(event.id)
                    await self._send_event(event, subscription)
                await _in_time(credit.use())
        heard = self._feed.heard  # what is told after that was not to be found before
        self._standing.trusted = not self._standing.vain
        while True:
            await self._wake.wait()
            self._wake.clear()
            events, self._waiting = self._waiting, []
            told = self._feed.told
            for event in events:
                if event.id not in sent:
                    await self._send_event(event, subscription)
            if told >= heard:
                sent.clear()
            if len(events) >= _WAITING:
                raise Invalid("too slow")

    async def _send_event(self, event: EndEvent, subscription: Subscription) -> None:
        if subscription.filter.wants(event):
            if self._sent % _IN_A_TURN == 0:
                await self._standing.turn()
            self._sent += 1
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._socket.send({"type": "websocket.send", "text": event.message})


async def _in_time(taken: Awaitable[None]) -> None:
    async with asyncio.timeout(_TAKE_SECONDS):
        await taken
