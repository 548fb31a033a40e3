"""One connection to the broker: frames in, frames out, until it breaks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ..protocol import codec
from ..protocol.closing import CloseCode
from ..protocol.conversation import Conversation
from ..protocol.errors import FrameRefused, ProtocolViolation
from ..protocol.limits import MAX_MESSAGE_BYTES
from ..protocol.messages import AuthSuccess, Draining, Frame
from .outbox import Outbox

F = TypeVar("F", bound=Frame)

#: Seconds that the last frames, and a closing handshake, may take.
CLOSE_SECONDS: Final = 1.0
#: Seconds that a broker can make its clients wait, at most: it may be back sooner than it thought.
MAX_RETRY_AFTER: Final = 60.0

log: Final = logging.getLogger("runlane.transport")


class Link(Generic[F]):
    """An authenticated connection. Every frame read goes straight to `on_frame`; sending never waits."""

    def __init__(
        self,
        socket: ClientConnection,
        conversation: Conversation,
        decoder: codec.FrameDecoder[F],
        welcome: AuthSuccess,
        first: tuple[F | FrameRefused, ...] = (),
    ) -> None:
        self.welcome = welcome
        self.heard_at = time.monotonic()  # written by the reader
        self.retry_after = 0.0  # seconds; written by the reader: what a broker that goes down asked for
        self._socket = socket
        self._conversation = conversation
        self._decoder = decoder
        self._first = first
        self._outbox = Outbox(min(welcome.max_message_bytes, MAX_MESSAGE_BYTES))

    def __repr__(self) -> str:
        return f"<Link to {self.welcome.broker}, {self._conversation.phase.name}, {self._outbox!r}>"

    def send(self, frame: Frame) -> None:
        """Queue a frame. Raises `FrameRefused` where the protocol does not allow it now."""
        self._conversation.up(frame)
        self._outbox.put(codec.encode(frame))

    def abort(self) -> None:
        """Break the connection at once, without a closing handshake; `run` then ends."""
        self._socket.transport.abort()

    async def run(self, on_frame: Callable[[F], None]) -> tuple[int | None, str]:
        """Read and write until the connection ends; return the close code (`None`: it broke) and the reason.

        Cancelled, it sends what is queued and closes the socket cleanly before it goes.
        """
        writer = asyncio.create_task(self._write())
        try:
            await self._read(on_frame)
        except ProtocolViolation as exc:
            log.warning("the broker broke the protocol: %s", exc.reason)
            await self._socket.close(
                CloseCode.PROTOCOL_VIOLATION, exc.reason.encode()[:120].decode(errors="ignore")
            )
            return None, exc.reason
        finally:
            self._outbox.close()
            await self._finish(writer)
        close = self._socket.protocol.close_rcvd
        return (close.code, close.reason) if close else (None, "the connection broke")

    async def _finish(self, writer: asyncio.Task[None]) -> None:
        """Send what is queued, within the time of a closing handshake, and close."""
        await asyncio.wait([writer], timeout=CLOSE_SECONDS)
        writer.cancel()
        await self._socket.close()

    async def _read(self, on_frame: Callable[[F], None]) -> None:
        self._take(self._first, on_frame)
        recv, decode = self._socket.recv, self._decoder.decode
        try:
            while True:
                message = await recv(decode=False)
                self.heard_at = time.monotonic()
                self._take(decode(message), on_frame)
        except ConnectionClosed:
            return

    def _take(self, frames: tuple[F | FrameRefused, ...], on_frame: Callable[[F], None]) -> None:
        for frame in frames:
            try:
                if isinstance(frame, FrameRefused):
                    raise frame
                self._conversation.down(frame)
            except FrameRefused as exc:
                log.warning("ignored a frame of the broker: %s", exc.message)
                self._conversation.count_bad_frame()
                continue
            if isinstance(frame, Draining):
                self._on_draining(frame)
            on_frame(frame)

    def _on_draining(self, frame: Draining) -> None:
        if not self.retry_after:
            log.info("the broker goes down; it will be tried again %g s after that", frame.retry_after_seconds)
        self.retry_after = min(frame.retry_after_seconds, MAX_RETRY_AFTER)

    async def _write(self) -> None:
        try:
            await self._outbox.drain(lambda message: self._socket.send(message, text=True))
        except ConnectionClosed:
            return  # the reader sees it, too
