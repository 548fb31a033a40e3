"""One connection of `runlane.v1`: handshake, one reader, one writer, and the same end whatever ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from runlane.protocol import limits
from runlane.protocol import messages as m
from runlane.protocol.closing import CloseCode
from runlane.protocol.codec import FrameDecoder, encode
from runlane.protocol.conversation import Conversation, Phase
from runlane.protocol.errors import ErrorCode, FrameRefused, ProtocolViolation

from ..access import AUTHENTICATED, Access
from ..core.core import Core
from ..serving.turns import standing_of
from .endings import over
from .outbox import HIGH_WATER, Outbox
from .talk import Talk

logger = logging.getLogger("runlane.gateway")

#: A message that a peer does not take within this time: it is too slow. Seconds.
WRITE_SECONDS: Final = 5.0
#: As much for one who has not been of use yet, or talks in vain.
STRANGERS_WRITE_SECONDS: Final = 3.0
#: A stranger that has taken so many bytes takes what it is sent.
_ENOUGH_TAKEN: Final = 1024 * 1024
#: How long a closing connection may take to send what is left. Seconds.
_CLOSE_SECONDS: Final = 1.0
#: Reading waits so long for room before it gives up. Seconds.
_CROWDED_SECONDS: Final = 5.0
#: Meanwhile it is as if the peer said something so often: it may, and nobody hears it. Seconds.
_UNHEARD_SECONDS: Final = 1.0
#: A message's frames are taken in slices of about this many bytes; between them others have their turn.
_SLICE_BYTES: Final = 8 * 1024
#: What a frame counts for at least in a slice: short ones cost time, too.
_FRAME_BYTES: Final = 256

_TOO_MUCH: Final = "too much, too fast; come back in 1 s"

Handler = Callable[[Any, Any, int], None]


class Connection:
    """Base of both sockets. Handlers get a frame and its size in bytes; they never wait."""

    handlers: ClassVar[Mapping[type[m.Frame], Handler]] = {}
    #: Frames that may wait for their commit.
    unprocessed_limit = limits.MAX_UNPROCESSED_FRAMES
    #: Bytes that may wait to be sent.
    outbox_limit = 64 * 1024 * 1024
    #: Bytes that may wait to be sent to a stranger before it is congested.
    strangers_high_water = HIGH_WATER

    def __init__(
        self,
        socket: WebSocket,
        core: Core,
        access: Access,
        conversation: Conversation,
        decoder: FrameDecoder[Any],
    ) -> None:
        self._socket = socket
        self._core = core
        self._access = access
        self._conversation = conversation
        self._decoder = decoder
        self._outbox = Outbox(self.outbox_limit)
        self._outbox.high_water = self.strangers_high_water
        self._closing: tuple[CloseCode, str] | None = None
        self._closed = asyncio.Event()
        self._takes = True
        self._room = asyncio.Event()
        self._room.set()
        self._unprocessed = 0
        self._unprocessed_bytes = 0
        self._talk = Talk(core.clock.monotonic)
        self._taken = 0
        self._standing = standing_of(socket.scope)
        self._standing.trusted = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._conversation.phase.name}, {self._outbox!r}>"

    # What subclasses fill in -------------------------------------------------------------------------------

    def on_clear(self) -> None:
        """The outbox has drained after it was congested."""

    def on_congested(self) -> None:
        """More waits to be sent than should."""

    def on_unheard(self) -> None:
        """The peer may have said something that is not read yet, for no fault of its."""

    def on_closed(self) -> None:
        """The connection is gone; called once, on every way out."""

    # Sending -----------------------------------------------------------------------------------------------

    def send(self, frame: m.Frame) -> None:
        """Queue a frame. A peer so slow that there is no room is closed."""
        self._conversation.down(frame)
        if self._closing is not None:
            return
        if not self._outbox.put(encode(frame)):
            self.close(CloseCode.UNRESPONSIVE, "too slow: the outbox is full")
        elif self._outbox.turned_congested():
            self._judge()
            self.on_congested()

    def refuse(self, refused: FrameRefused) -> None:
        """Tell the peer that a frame was refused, and count it."""
        self.send(
            m.Error(
                code=refused.code,
                message=refused.message,
                frame=refused.frame,
                field=refused.field,
                ref=refused.ref,
            )
        )
        if refused.code is not ErrorCode.UNSUPPORTED:  # which is right, only not here
            self._conversation.count_bad_frame()

    def in_vain(self, cost: float = 1.0) -> None:
        """Note that a frame changed nothing; a peer that goes on so is closed."""
        if not self._talk.spend(cost):
            self.silence()
        self._judge()

    def of_use(self) -> None:
        """Note that a frame changed something; a peer that is of use waits for no turns."""
        self._talk.become_known()
        self._outbox.high_water = HIGH_WATER
        self._judge(of_use=True)

    def _patience(self) -> float:
        """Return for how many seconds a message may wait to be taken."""
        return WRITE_SECONDS if self._standing.trusted else STRANGERS_WRITE_SECONDS

    def _judge(self, *, of_use: bool = False) -> None:
        """See whether it talks in vain or takes too little; who does is not trusted until it is of use again."""
        self._standing.judge(vain=self._outbox.congested or not self._talk.is_sparing, of_use=of_use)

    def silence(self) -> None:
        """Close: it has said too much."""
        self.close(CloseCode.TOO_MUCH, _TOO_MUCH)

    def close(self, code: CloseCode, reason: str) -> None:
        """Close after what waits has been sent. The first call counts."""
        if self._closing is None:
            self._closing = (code, reason)
            self._closed.set()

    # Unprocessed frames ------------------------------------------------------------------------------------

    def hold(self, size: int, weight: int = 1) -> Callable[[], None]:
        """Note a frame that waits for its commit, as so many; call what is returned when it is done."""
        self._unprocessed += weight
        self._unprocessed_bytes += size
        if self._is_crowded():
            self._room.clear()
        return partial(self._done, size, weight)

    def _done(self, size: int, weight: int) -> None:
        self._unprocessed -= weight
        self._unprocessed_bytes -= size
        if not self._is_crowded():
            self._room.set()

    def _is_crowded(self) -> bool:
        return (
            self._unprocessed >= self.unprocessed_limit or self._unprocessed_bytes >= limits.MAX_UNPROCESSED_BYTES
        )

    # Life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection to its end."""
        if m.SUBPROTOCOL not in self._socket.scope["subprotocols"]:
            await _refuse_upgrade(self._socket)
            return
        await self._socket.accept(subprotocol=m.SUBPROTOCOL)
        tasks = [asyncio.create_task(c) for c in (self._read(), self._write(), self._closed.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            self.on_closed()
            await over(tasks)
            await self._say_goodbye()

    async def _read(self) -> None:
        """The one reader: always inside `receive`, except while it waits for room."""
        try:
            async with asyncio.timeout(limits.HANDSHAKE_SECONDS) as deadline:
                if self._socket.scope["state"].get(AUTHENTICATED):
                    self._welcome()
                    deadline.reschedule(self._handshake_deadline())
                while self._closing is None:
                    before = self._conversation.phase
                    await self._take(await receive_text(self._socket))
                    if self._conversation.phase is not before:
                        deadline.reschedule(self._handshake_deadline())
        except WebSocketDisconnect:
            self.close(CloseCode.NORMAL, "")
        except TimeoutError:
            self.close(CloseCode.UNAUTHENTICATED, "the handshake took too long")
        except ProtocolViolation as exc:
            self.close(exc.code, exc.reason)
        except Exception:
            logger.exception("a connection failed")
            self.close(CloseCode.FAILED, "internal error")

    def _handshake_deadline(self) -> float | None:
        """Each step of the handshake that the peer owes has its own time."""
        if self._conversation.phase not in (Phase.CONNECTED, Phase.AUTHENTICATED):
            return None
        return asyncio.get_running_loop().time() + limits.HANDSHAKE_SECONDS

    async def _wait_for_room(self) -> None:
        """Read nothing until there is room; close if there is none for long, unless the database is away."""
        patience = _CROWDED_SECONDS
        while not self._room.is_set():
            try:
                async with asyncio.timeout(_UNHEARD_SECONDS):
                    await self._room.wait()
            except TimeoutError:
                self.on_unheard()
                patience = patience - _UNHEARD_SECONDS if self._core.store.available else _CROWDED_SECONDS
                if patience <= 0:
                    self.silence()
                    return

    async def _take(self, text: str) -> None:
        """Take a message's frames in their order, with pauses: one message may hold tens of thousands."""
        frames = self._decoder.decode(text)
        size = len(text) // max(len(frames), 1)
        taken = 0
        for frame in frames:
            self._handle(frame, size)
            if self._closing is not None:
                return
            taken += max(size, _FRAME_BYTES)
            if not self._room.is_set():
                await self._wait_for_room()
            elif taken >= _SLICE_BYTES:
                await (self._standing.turn() if self._standing.waits else asyncio.sleep(0))
                taken = 0

    def _handle(self, frame: m.Frame | FrameRefused, size: int) -> None:
        if isinstance(frame, FrameRefused):
            self.refuse(frame)
            return
        try:
            self._conversation.up(frame)
            if not self._talk.allows(frame):
                self.silence()
                return
            self._judge()
            self.handlers[type(frame)](self, frame, size)
        except FrameRefused as exc:
            self.refuse(exc)

    async def _write(self) -> None:
        """The one writer. Nobody else waits for a peer."""
        try:
            while True:
                await self._outbox.filled()
                await self._standing.turn()
                for message in self._outbox.take():
                    async with asyncio.timeout(self._patience()):
                        await self._send(message)
                if self._outbox.turned_clear():
                    self._judge()
                    self.on_clear()
        except TimeoutError:
            self._takes = False
            self.close(CloseCode.UNRESPONSIVE, f"too slow: a message was not taken within {self._patience():g} s")
        except (WebSocketDisconnect, RuntimeError, OSError):
            self.close(CloseCode.NORMAL, "")

    async def _send(self, message: bytes) -> None:
        await self._socket.send({"type": "websocket.send", "text": message.decode()})
        self._outbox.sent(len(message))
        self._taken += len(message)
        if self._taken > _ENOUGH_TAKEN:
            self._standing.widen()

    async def _say_goodbye(self) -> None:
        """Send what is left and the close frame, if the peer still listens."""
        if not self._takes:
            return  # it had its time
        code, reason = self._closing or (CloseCode.FAILED, "internal error")
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                for message in self._outbox.take():
                    await self._send(message)
                await self._socket.close(code, reason[:120])
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
            return  # it does not: the transport is closed when we return

    # The handshake's first half ----------------------------------------------------------------------------

    def on_auth(self, frame: m.Auth, _size: int) -> None:
        """Check the token. Raises `ProtocolViolation`."""
        if not self._access.allows(frame.token):
            raise ProtocolViolation("authentication failed", CloseCode.UNAUTHENTICATED)
        self._welcome()

    def on_beat(self, frame: m.Beat, _size: int) -> None:
        """Echo."""
        self.send(frame)

    def _welcome(self) -> None:
        timers = self._core.settings.timers
        self.send(
            m.AuthSuccess(
                protocol=m.SUBPROTOCOL,
                broker=self._core.broker_id,
                beat_seconds=timers.beat,
                idle_beat_seconds=timers.idle_beat,
                resume_seconds=timers.resume,
                max_message_bytes=limits.MAX_MESSAGE_BYTES,
                max_payload_bytes=limits.MAX_PAYLOAD_BYTES,
            )
        )


async def _refuse_upgrade(socket: WebSocket) -> None:
    """Say in plain words what is missing: a bare 403 helps nobody."""
    await socket.send(
        {
            "type": "websocket.http.response.start",
            "status": 400,
            "headers": [(b"content-type", b"text/plain")],
        }
    )
    text = f"expected the WebSocket subprotocol {m.SUBPROTOCOL}\n".encode()
    await socket.send({"type": "websocket.http.response.body", "body": text})


async def receive_text(socket: WebSocket) -> str:
    """Return the next message. Raises `WebSocketDisconnect`, and `ProtocolViolation` for one that is binary."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    if text is None:
        raise ProtocolViolation("binary messages are not allowed")
    return text


def stranger(socket: WebSocket) -> str:
    """Name a peer that has not subscribed, for the log: where it comes from is all that is known of it."""
    where = "no known address" if socket.client is None else socket.client.host
    return f"a client at {where} that has not subscribed"
