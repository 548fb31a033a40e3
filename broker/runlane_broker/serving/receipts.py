"""Pongs as receipts: on a connection that asks for it, a ping is answered when all before it has been settled.

Prefect's clients keep the events that they have sent until a pong comes, and send them again if none does. So the
route that takes events answers pings after its commits; every other connection answers at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from websockets.frames import Frame

from .extensions import ExtensibleProtocol, offered

#: The ASGI extension: its `receipts` are the connection's `Receipts`.
EXTENSION: Final = "runlane.receipts"


class Receipts:
    """Counts the messages of one connection, and those of them that are settled."""

    def __init__(self) -> None:
        self._held = False
        self._pongs: deque[tuple[int, Callable[[], None]]] = deque()
        self._settled = 0
        self._came = 0

    def hold(self) -> None:
        """Answer pings after the messages before them from now on."""
        self._held = True

    def came(self) -> None:
        """A message came."""
        self._came += 1

    def settle(self, count: int = 1) -> None:
        """The oldest messages need no more attention: answer the pings that came behind them."""
        self._settled += count
        while self._pongs and self._pongs[0][0] <= self._settled:
            self._pongs.popleft()[1]()

    def pinged(self, answer: Callable[[], None]) -> None:
        """A ping came: answer it, now or later."""
        if self._held and self._settled < self._came:
            self._pongs.append((self._came, answer))
        else:
            answer()


class ReceiptProtocol(ExtensibleProtocol):
    """uvicorn's protocol, with `Receipts` in its scope."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._receipts = Receipts()
        #: What answers the frames that came together, as far as their turn has not come: it is made all at once.
        self._made: deque[bytes] = deque()
        self.offer(EXTENSION, receipts=self._receipts)

    def send_receive_event_to_app(self) -> None:
        """Count the message."""
        if not self.close_sent:
            self._receipts.came()
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Write the pong when its time has come. Pings that came together have each a time of their own."""
        self._made.extend(self.conn.data_to_send())
        if self._made:  # else it has left with what was sent meanwhile
            self._receipts.pinged(partial(_answer, self.transport, self.writable, self._made.popleft()))

    def handle_close(self, event: Frame) -> None:
        """Write what answers it, which was made with the pongs before it."""
        if self._made:
            self.transport.write(b"".join(self._made))
            self._made.clear()
        super().handle_close(event)


def _answer(transport: asyncio.Transport, writable: asyncio.Event, pong: bytes) -> None:
    if writable.is_set() and not transport.is_closing():  # nobody is owed what he does not take
        transport.write(pong)


def receipts_of(scope: Mapping[str, Any]) -> Receipts:
    """Return those of a connection; where its server has none, some that hold nothing back."""
    return offered(scope, EXTENSION).get("receipts") or Receipts()
