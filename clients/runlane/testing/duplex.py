"""A WebSocket without a wire: on one end what `websockets` gives a client, on the other an ASGI application's.

The ends live on two event loops, of two threads as a rule. What is sent on one end is put into the other's inbox.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.frames import Close

from ..protocol.messages import SUBPROTOCOL

T = TypeVar("T")
Message: TypeAlias = MutableMapping[str, Any]

_NORMAL: Final = 1000
_ABNORMAL: Final = 1006


class Inbox(Generic[T]):
    """Items from any thread, for one coroutine of the loop that it was made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: deque[T] = deque()
        self._woken = False  # set by whoever puts, taken back by the loop before anybody looks
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Inbox {len(self._items)} items>"

    def put(self, item: T) -> None:
        """Add an item. From any thread; after the loop's end it goes nowhere."""
        self._items.append(item)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake)

    async def get(self) -> T:
        """Wait for the next item."""
        while not self._items:
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._items.popleft()

    def _wake(self) -> None:
        self._woken = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(frozen=True, slots=True)
class _End:
    """The connection is over; `close` is what the other end said, None where it just broke."""

    close: Close | None


class ClientEnd:
    """Stands for a `websockets` connection: what `dial` and `Link` use of one, and no more."""

    def __init__(self) -> None:
        self.subprotocol: str | None = None  # written when the other end has accepted
        self.close_rcvd: Close | None = None  # written when the connection is over
        self._inbox: Inbox[bytes | _End | None] = Inbox()  # None: accepted
        self._feed: Callable[[Message], None] | None = None
        self._end: _End | None = None

    def __repr__(self) -> str:
        return f"<ClientEnd {'closed' if self._end else 'open'}>"

    @property
    def transport(self) -> ClientEnd:
        """What can be aborted."""
        return self

    @property
    def protocol(self) -> ClientEnd:
        """What knows `close_rcvd`."""
        return self

    async def opened(self, feed: Callable[[Message], None]) -> None:
        """Wait until the application has accepted. Raises `ConnectionError` where it has not."""
        self._feed = feed
        if isinstance(end := await self._inbox.get(), _End):
            raise ConnectionRefusedError(end.close.reason if end.close else "refused")
        self.subprotocol = SUBPROTOCOL

    async def send(self, message: bytes, *, text: bool) -> None:
        """Send a text message. Raises `ConnectionClosed`."""
        assert text, "the protocol has no binary messages"
        if self._end is not None:
            raise _closed(self._end)
        self._tell({"type": "websocket.receive", "text": message.decode()})

    async def recv(self, *, decode: bool) -> bytes:
        """Wait for a message. Raises `ConnectionClosed`."""
        assert not decode, "the codec takes bytes"
        item = await self._inbox.get() if self._end is None else self._end
        if isinstance(item, bytes):
            return item
        assert item is not None, "accepted once"
        self._over(item)
        raise _closed(item)

    async def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """Close, unless that is done."""
        if self._end is None:
            self._tell({"type": "websocket.disconnect", "code": code, "reason": reason})
            self._over(_End(Close(code, reason)))

    def abort(self) -> None:
        """Break the connection."""
        if self._end is None:
            self._tell({"type": "websocket.disconnect", "code": _ABNORMAL, "reason": ""})
            self._over(_End(None))

    def _over(self, end: _End) -> None:
        if self._end is None:
            self._end = end
            self.close_rcvd = end.close
            self._inbox.put(end)  # for whoever waits in `recv`

    def _tell(self, message: Message) -> None:
        assert self._feed is not None, "nothing is sent before it is opened"
        self._feed(message)

    # --- What the other end calls, from its thread ---------------------------------------------------------

    def accepted(self) -> None:
        """The application takes the connection."""
        self._inbox.put(None)

    def message(self, text: str) -> None:
        """The application has sent a message."""
        self._inbox.put(text.encode())

    def ended(self, close: Close | None) -> None:
        """The application has closed the connection, or will not have it."""
        self._inbox.put(_End(close))


def _closed(end: _End) -> ConnectionClosedOK | ConnectionClosedError:
    kind = ConnectionClosedOK if end.close is not None and end.close.code == _NORMAL else ConnectionClosedError
    return kind(end.close, end.close, None if end.close is None else True)


class ServerEnd:
    """One connection as an ASGI application sees it: `scope`, `receive`, `send`."""

    def __init__(self, path: str, client: ClientEnd) -> None:
        self.scope: Message = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            "client": None,
            "server": None,
            "subprotocols": [SUBPROTOCOL],
            "extensions": {"websocket.http.response": {}},
        }
        self._client = client
        self._inbox: Inbox[Message] = Inbox()
        self._inbox.put({"type": "websocket.connect"})
        self._gone = False

    def feed(self, message: Message) -> None:
        """Take what the client sends. From any thread."""
        self._inbox.put(message)

    async def receive(self) -> Message:
        """Return what the client has sent; the application's `receive`."""
        message = await self._inbox.get()
        self._gone = self._gone or message["type"] == "websocket.disconnect"
        return message

    async def send(self, message: Message) -> None:
        """Hand the client what the application says; the application's `send`."""
        if self._gone:
            raise OSError("the client is gone")
        match message["type"]:
            case "websocket.send":
                self._client.message(message["text"])
            case "websocket.accept":
                self._client.accepted()
            case "websocket.close":
                self.end(Close(message.get("code", _NORMAL), message.get("reason") or ""))
            case "websocket.http.response.start":
                self.end(Close(_ABNORMAL, f"HTTP {message['status']}"))
            case _:  # the body of that response
                pass

    def end(self, close: Close | None) -> None:
        """Close the connection, whatever the application thinks of it."""
        if not self._gone:
            self._gone = True
            self._client.ended(close)
            self._inbox.put({"type": "websocket.disconnect", "code": _ABNORMAL})
