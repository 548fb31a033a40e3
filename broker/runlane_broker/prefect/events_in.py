"""`/api/events/in`: the states of the task runs that Prefect's clients execute by themselves."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..access import Access
from ..core.core import Core
from ..errors import Invalid
from ..gateway.endings import over
from ..gateway.talk import Talk
from ..serving.receipts import receipts_of
from ..serving.sizes import allow_messages
from ..serving.turns import standing_of
from ..storage.operations.reporting import ReportedState
from .handshake import SUBPROTOCOL, TRY_AGAIN, open_socket, receive_text
from .reading import read_event

logger = logging.getLogger("runlane.prefect")

#: The longest event. A Prefect server takes 1.5 MB. Bytes.
MAX_EVENT_BYTES: Final = 1_600_000
#: Reports that one connection may have in front of the database; then it is read no further.
_AT_ONCE: Final = 200
#: Events that are not understood, of one connection, which stand in the log.
_SAID: Final = 10
#: What one costs.
_VAIN_EVENT: Final = 4.0
#: Seconds in which a peer takes the close frame, or is cut off.
_CLOSE_SECONDS: Final = 1.0


class EventsIn:
    """One connection. Events are recorded in their order, as many together as have come meanwhile.

    A ping is answered when all that came before it is committed.
    """

    def __init__(self, socket: WebSocket, core: Core, access: Access) -> None:
        self._socket = socket
        self._access = access
        self._reporter = core.events.reporter()
        self._receipts = receipts_of(socket.scope)
        self._standing = standing_of(socket.scope)
        self._standing.trusted = False
        self._talk = Talk(core.clock.monotonic)
        self._strange = 0
        self._queue: asyncio.Queue[ReportedState | None] = asyncio.Queue(_AT_ONCE)

    async def run(self) -> None:
        """Serve the connection to its end. What has come is recorded, also after that."""
        self._receipts.hold()
        try:
            if not await open_socket(self._socket, self._access):
                return
        except WebSocketDisconnect:
            return
        allow_messages(self._socket.scope, MAX_EVENT_BYTES)
        if SUBPROTOCOL in self._socket.scope["subprotocols"]:
            self._receipts.settle()  # the auth message
        recording = asyncio.create_task(self._record())
        reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait((reading, recording), return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            recording.cancel()
            await over((reading, recording))
        if not self._may_go_on():
            with suppress(TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._socket.close(TRY_AGAIN, "too many events that are not understood")

    async def _read(self) -> None:
        try:
            while self._may_go_on():
                await self._queue.put(self._parsed(await receive_text(self._socket)))
        except WebSocketDisconnect:
            pass
        await self._queue.join()

    def _may_go_on(self) -> bool:
        return self._talk.has_left

    def _parsed(self, text: bytes) -> ReportedState | None:
        try:
            return read_event(text)
        except Invalid as exc:
            self._not_understood(exc.message)
            return None

    def _not_understood(self, why: str) -> None:
        """Say so, but not for ever. Closing would have the peer come back; so it takes very many of them."""
        self._strange += 1
        self._talk.spend(_VAIN_EVENT)
        self._judge(of_use=False)
        if self._strange <= _SAID:
            more = "; no more is said of this connection" if self._strange == _SAID else ""
            logger.warning("an event was not understood: %s%s", why, more)

    def _judge(self, *, of_use: bool) -> None:
        self._standing.judge(vain=not self._talk.is_sparing, of_use=of_use)

    async def _record(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            reports = [report for report in batch if report is not None]
            if reports:
                await self._reporter.record(reports)
                self._talk.become_known()
                self._judge(of_use=True)
            self._receipts.settle(len(batch))
            for _ in batch:
                self._queue.task_done()
