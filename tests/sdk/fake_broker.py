"""A broker of a few dozen lines: real sockets and frames, scripted behaviour.

A test either hands it a script (`on_submit`, `on_watch`, …) or takes connections and speaks by hand.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from runlane.protocol import codec
from runlane.protocol import messages as m
from runlane.protocol.conversation import Conversation, submission_conversation, worker_conversation
from runlane.protocol.errors import FrameRefused
from runlane.settings import Settings

T = TypeVar("T")
F = TypeVar("F", bound=m.Frame)

#: Seconds after which a test that waits for something has failed.
PATIENCE = 5.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, but not forever."""

    async def bounded() -> T:
        async with asyncio.timeout(3 * PATIENCE):
            return await main

    return asyncio.run(bounded())


class Peer:
    """One connection, authenticated, as the broker sees it."""

    def __init__(self, socket: ServerConnection, conversation: Conversation, decoder: Any) -> None:
        self.socket = socket
        self.heard: list[Any] = []
        self._conversation = conversation
        self._decoder = decoder
        self._frames: deque[Any] = deque()

    async def next(self, seconds: float | None = PATIENCE) -> Any:
        """Return the next frame, beats left out."""
        async with asyncio.timeout(seconds):
            while True:
                while not self._frames:
                    self._frames.extend(self._decoder.decode(await self.socket.recv(decode=False)))
                frame = self._frames.popleft()
                assert not isinstance(frame, FrameRefused), frame.message
                self._conversation.up(frame)
                if isinstance(frame, m.Beat):
                    await self.send(frame)
                    continue
                self.heard.append(frame)
                return frame

    async def expect(self, kind: type[F]) -> F:
        """Return the next frame, which must be of this kind."""
        frame = await self.next()
        assert isinstance(frame, kind), frame
        return frame

    async def send(self, *frames: m.Frame) -> None:
        for frame in frames:
            self._conversation.down(frame)
        for message in codec.pack(codec.encode(frame) for frame in frames):
            await self.socket.send(message, text=True)

    async def closed(self) -> None:
        """Wait until the client has gone."""
        async with asyncio.timeout(PATIENCE):
            await self.socket.wait_closed()

    async def goodbye(self) -> None:
        """Read on until the client has quit, or gone."""
        with suppress(ConnectionClosed, TimeoutError):
            while not isinstance(await self.next(), m.Quit):
                pass
        await self.socket.close()

    def drop(self) -> None:
        """Break the connection as a cable would."""
        self.socket.transport.abort()

    # --- What a worker's session needs most ------------------------------------------------------------

    async def subscribed(self, **answer: Any) -> m.Subscribe:
        subscribe = await self.expect(m.Subscribe)
        await self.send(m.Subscribed(session=SESSION, resume_token="token", **answer))
        return subscribe

    async def push(self, *runs: m.PushedRun) -> None:
        await self.send(m.Runs(runs=runs))

    async def finished(self, *, record: bool = True) -> m.Finished:
        """Take `started` and `finished` of a run, and its progress between."""
        await self.expect(m.Started)
        while isinstance(report := await self.next(), m.Progress):
            pass
        assert isinstance(report, m.Finished), report
        if record:
            await self.record(report)
        return report

    async def record(self, report: m.Finished) -> None:
        await self.send(m.Recorded(runs=(m.RecordedRun(id=report.id, attempt=report.attempt),)))


SESSION = "00000000-0000-7000-8000-00000000aaaa"


class FakeBroker:
    """Takes connections; a test takes them from it with `peer`."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.connections = 0
        self.before_auth: Callable[[ServerConnection], Coroutine[Any, Any, bool]] | None = None
        self.welcome = m.AuthSuccess(
            protocol=m.SUBPROTOCOL,
            broker="fake",
            beat_seconds=2.0,
            idle_beat_seconds=20.0,
            resume_seconds=5.0,
            max_message_bytes=1024 * 1024,
            max_payload_bytes=512 * 1024,
        )
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._taken: list[Peer] = []

    async def peer(self, seconds: float = PATIENCE) -> Peer:
        """Return the next connection."""
        async with asyncio.timeout(seconds):
            self._taken.append(await self._peers.get())
            return self._taken[-1]

    async def peers(self) -> AsyncIterator[Peer]:
        """Yield all connections, for ever."""
        while True:
            yield await self._peers.get()

    async def end(self, running: asyncio.Task[None]) -> None:
        """End a worker as a broker does: close the connection after `quit`."""
        running.cancel()
        goodbyes = [asyncio.create_task(peer.goodbye()) for peer in self._taken]
        await asyncio.wait([running, *goodbyes])

    async def handle(self, socket: ServerConnection) -> None:
        self.connections += 1
        if self.before_auth is not None and not await self.before_auth(socket):
            return
        assert socket.request is not None
        worker = socket.request.path.endswith("/scheduled")
        conversation = worker_conversation() if worker else submission_conversation()
        peer = Peer(socket, conversation, codec.WORKER_UP if worker else codec.SUBMISSION_UP)
        try:
            await peer.expect(m.Auth)
            await peer.send(self.welcome)
        except ConnectionClosed:
            return
        self._peers.put_nowait(peer)
        await socket.wait_closed()


@asynccontextmanager
async def fake_broker() -> AsyncIterator[FakeBroker]:
    broker = FakeBroker()
    async with serve(
        broker.handle,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(m.SUBPROTOCOL)],
        compression=None,
        close_timeout=0.1,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        broker.settings = Settings(url=f"http://127.0.0.1:{port}")
        yield broker


def pushed(key: str, attempt: int = 1, run_id: str | None = None, **parameters: Any) -> m.PushedRun:
    """Return a run to push."""
    from runlane.protocol.ids import uuid7

    payload = msgspec.Raw(msgspec.json.encode(parameters))
    return m.PushedRun(id=run_id or uuid7(), attempt=attempt, task_key=key, parameters=payload)


def submitted(frame: m.Submit) -> m.Submitted:
    """Return the answer to a frame whose runs are all fine."""
    runs = (codec.decode_new_run(raw, "runs", 10**6) for raw in frame.runs)
    return m.Submitted(ref=frame.ref, runs=tuple(m.SubmittedRun(id=run.id, created=True) for run in runs))


def completed(run_id: str, result: bytes = b"5") -> m.RunFinished:
    state = m.RunState(type=m.StateType.COMPLETED, name="Completed")
    return m.RunFinished(id=run_id, state=state, result=msgspec.Raw(result))
