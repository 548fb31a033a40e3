"""The subscription socket as Prefect's task workers drive it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from runlane.protocol.closing import CloseCode
from runlane.protocol.errors import ProtocolViolation
from runlane.protocol.limits import HANDSHAKE_SECONDS
from runlane.protocol.messages import SUBPROTOCOL as RUNLANE
from runlane.protocol.messages import PushedRun

from ..access import AUTHENTICATED, Access
from ..api.rendering import render_task_run
from ..core.core import Core
from ..core.registry import Session
from ..gateway.connection import receive_text, stranger
from ..gateway.endings import over
from ..gateway.talk import Talk
from ..serving.direct import direct_way
from ..serving.turns import standing_of
from ..storage.run_records import RunRecord
from .dialect import AUTH_SUCCESS, SUBPROTOCOL, Auth, Dialect, Message, Phase, Subscribe, Word

logger = logging.getLogger("runlane.prefect")

#: A message that a peer does not take within this time: it is too slow. Seconds.
_WRITE_SECONDS: Final = 5.0
#: How long a closing connection may take to say so. Seconds.
_CLOSE_SECONDS: Final = 1.0

#: What it costs to acknowledge nothing.
_VAIN_ACK: Final = 6.0
#: These workers give up on any other code.
_CODES: Final = frozenset(
    {
        CloseCode.NORMAL,
        CloseCode.UNAUTHENTICATED,
        CloseCode.RESTART,
        CloseCode.OVERLOADED,
        CloseCode.PROTOCOL_VIOLATION,
    }
)

_encode = msgspec.json.Encoder().encode


class TakerConnection:
    """A Prefect worker's connection; to the core it is a `TakerPort`."""

    def __init__(self, socket: WebSocket, core: Core, access: Access) -> None:
        self._socket = socket
        self._core = core
        self._access = access
        self._legacy = SUBPROTOCOL not in socket.scope["subprotocols"]
        self._dialect = Dialect(legacy=self._legacy)
        self._session: Session | None = None
        self._direct = direct_way(socket.scope)
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        #: How many messages of the outbox have not been sent yet.
        self._unsent = 0
        self._closing: tuple[CloseCode, str] | None = None
        self._closed = asyncio.Event()
        self._gone = False
        self._talk = Talk(core.clock.monotonic)
        self._standing = standing_of(socket.scope)
        self._standing.trusted = False

    def __repr__(self) -> str:
        return f"<TakerConnection {self._dialect!r}, {self._session!r}>"

    @staticmethod
    def speaks(subprotocols: Sequence[str]) -> bool:
        """Say whether a socket that offers these is to be served here: any without `runlane.v1`, or with none."""
        return RUNLANE not in subprotocols and (SUBPROTOCOL in subprotocols or not subprotocols)

    # Up ------------------------------------------------------------------------------------------------------

    def _came(self, text: str) -> None:
        """Take a message, whichever way it has come."""
        if self._closing is not None:
            return
        try:
            self._take(self._dialect.take(text))
        except ProtocolViolation as exc:
            self.close(exc.code, exc.reason)
        except Exception:
            logger.exception("a connection failed")
            self.close(CloseCode.OVERLOADED, "internal error")

    def _take(self, message: Message) -> None:
        match message:
            case Auth(token):
                self._authenticate(token)
            case Subscribe(keys, client_id):
                self._core.taking.subscribe(self, client_id, keys, self._opened)
            case Word.ACK:
                self._acknowledged()
            case Word.QUIT:
                self.close(CloseCode.NORMAL, "goodbye")

    def _authenticate(self, token: str | None) -> None:
        if not self._socket.scope["state"].get(AUTHENTICATED) and not self._access.allows(token):
            reason = "authentication needs a token" if token is None else "the token is not valid"
            raise ProtocolViolation(reason, CloseCode.UNAUTHENTICATED)
        self._put(AUTH_SUCCESS)

    def _opened(self, session: Session | None) -> None:
        if session is None:
            self.close(CloseCode.OVERLOADED, "the database cannot be written now")
        elif self._gone:
            self._core.taking.disconnected(session)
        else:
            self._session = session

    def _acknowledged(self) -> None:
        """An acknowledgement of nothing changes nothing, and so does one of what has not been sent yet."""
        if self._session is not None and not self._unsent:
            self._core.sessions.seen(self._session)
            if self._core.taking.acknowledged(self._session):
                self._talk.become_known()
                self._judge(of_use=True)
                return
        if not self._talk.spend(_VAIN_ACK):
            self.close(CloseCode.OVERLOADED, "too many acknowledgements of nothing")
        self._judge(of_use=False)

    def _judge(self, *, of_use: bool) -> None:
        self._standing.judge(vain=not self._talk.is_sparing, of_use=of_use)

    # Down: TakerPort -----------------------------------------------------------------------------------------

    def task_run(self, run: RunRecord) -> None:
        """Push a leased run, as it was while it waited."""
        message = _encode(render_task_run(run, self._core.clock.now()))
        if self._unsent or self._direct is None or not self._direct.send(message):
            self._put(message.decode())

    def _put(self, text: str) -> None:
        self._unsent += 1
        self._outbox.put_nowait(text)

    def runs(self, runs: Sequence[PushedRun]) -> None:
        """Not here: `task_run` is told."""

    def recorded(self, run_id: str, attempt: int, *, gone: bool = False) -> None:
        """These workers do not want to know."""

    def lease_lost(self, run_id: str, attempt: int) -> None:
        """Let the next run come; the worker cannot be told."""
        if self._session is not None:
            self._core.taking.left(self._session, run_id)

    def cancel(self, run_id: str, attempt: int, grace_seconds: float) -> None:
        """It cannot be asked to stop: it learns of that when it reports, if it asks for states at all."""
        if self._session is not None:
            self._core.taking.cancelled(self._session, run_id)

    def draining(self, retry_after: float) -> None:
        """It comes back by itself after the close with 1012."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Close, with a code that these workers come back after. The first call counts."""
        if self._closing is not None:
            return
        self._closing = (code if code in _CODES else CloseCode.OVERLOADED, reason)
        self._closed.set()
        if code not in (CloseCode.NORMAL, CloseCode.RESTART):
            client = stranger(self._socket) if self._session is None else self._session.client_id
            logger.warning("closing %s: %d %s", client, code, reason)

    # Life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection to its end. The upgrade is never refused: that would end the worker."""
        await self._socket.accept(subprotocol=None if self._legacy else SUBPROTOCOL)
        tasks = [asyncio.create_task(c) for c in (self._read(), self._write(), self._closed.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            self._gone = True
            if self._direct is not None:
                self._direct.take = None
            if self._session is not None:
                self._core.taking.disconnected(self._session)
            await over(tasks)
            await self._say_goodbye()

    async def _read(self) -> None:
        try:
            if self._legacy and not self._access.is_open:
                raise ProtocolViolation(
                    "the subprotocol 'prefect' and a token are needed", CloseCode.UNAUTHENTICATED
                )
            async with asyncio.timeout(HANDSHAKE_SECONDS) as deadline:
                while self._closing is None:
                    self._came(await receive_text(self._socket))
                    if self._dialect.phase is Phase.RUNS:
                        deadline.reschedule(None)
                        self._shorten()
        except WebSocketDisconnect:
            self.close(CloseCode.NORMAL, "")
        except TimeoutError:
            self.close(CloseCode.OVERLOADED, "the handshake took too long")
        except ProtocolViolation as exc:
            self.close(exc.code, exc.reason)
        except Exception:
            logger.exception("a connection failed")
            self.close(CloseCode.OVERLOADED, "internal error")

    def _shorten(self) -> None:
        """From here on a message is an acknowledgement, and nothing waits for anything."""
        if self._direct is not None:
            self._direct.take = self._came

    async def _write(self) -> None:
        """The one writer: nobody else waits for the peer."""
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(None) as deadline:
                while True:
                    text = await self._outbox.get()
                    deadline.reschedule(now() + _WRITE_SECONDS)
                    await self._socket.send({"type": "websocket.send", "text": text})
                    self._unsent -= 1
                    deadline.reschedule(None)
        except TimeoutError:
            self.close(CloseCode.OVERLOADED, f"too slow: a message was not taken within {_WRITE_SECONDS:g} s")
        except (WebSocketDisconnect, RuntimeError, OSError):
            self.close(CloseCode.NORMAL, "")

    async def _say_goodbye(self) -> None:
        """Send the close frame, if the peer still listens. A run that was not sent is queued again already."""
        code, reason = self._closing or (CloseCode.OVERLOADED, "internal error")
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._socket.close(code, reason[:120])
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
            return  # it does not: the transport is closed when we return
