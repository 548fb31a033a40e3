"""The broker of a test, on a thread and an event loop of its own: neither can stand in the other's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from websockets.asyncio.client import ClientConnection
from websockets.frames import Close

from runlane_broker.app import create_app
from runlane_broker.clock import to_datetime, to_micros
from runlane_broker.storage.records import RunRecord
from runlane_broker.testing import TestedBroker, VirtualClock, tested_broker

from ..protocol.closing import CloseCode
from ..settings import Settings
from ..transport import memory
from .duplex import ClientEnd, ServerEnd

T = TypeVar("T")


class Engine:
    """Runs the broker. What is public can be called from any thread."""

    def __init__(self, now: datetime) -> None:
        self._clock = VirtualClock(to_micros(now))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._broker: TestedBroker | None = None
        self._app: Callable[..., Awaitable[None]] | None = None
        self._connections: dict[asyncio.Task[None], ServerEnd] = {}
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="runlane test broker", daemon=True)
        self._url = memory.listen(self)
        self.settings = Settings(url=self._url)

    def __repr__(self) -> str:
        return f"<Engine of {self._url}, {len(self._connections)} connections>"

    @property
    def now(self) -> datetime:
        """The broker's time of day."""
        return to_datetime(self._clock.now())

    def start(self) -> Future[None]:
        """Begin; the future is done when the broker serves."""
        self._thread.start()
        return self._ready

    def stop(self) -> Future[None]:
        """End every connection, and the broker; the future is done when nothing is left."""
        memory.unlisten(self._url)
        ended: Future[None] = Future()
        threading.Thread(target=self._join, args=(ended,), name="runlane test broker's end", daemon=True).start()
        return ended

    async def idle(self, task_keys: Sequence[str]) -> datetime | None:
        """Wait until nothing of these keys is left to be done now; return when the next run comes due."""
        broker = self._serving()
        waiting = await asyncio.wrap_future(self._call(broker.idle(task_keys)))
        return None if waiting.next_due is None else to_datetime(waiting.next_due)

    def next_due(self, task_keys: Sequence[str]) -> tuple[bool, datetime | None]:
        """Say whether anything of these keys is left to be done now, and when the next run comes due."""
        store = self._serving().store
        waiting = self._call(store.waiting_of(task_keys, self._clock.now())).result()
        due = None if waiting.next_due is None else to_datetime(waiting.next_due)
        return bool(waiting.due or waiting.leased), due

    def move_to(self, when: datetime) -> None:
        """Move the clock forward."""
        broker = self._serving()

        async def move() -> None:
            broker.move_to(to_micros(when))

        self._call(move()).result()

    def runs(self) -> list[RunRecord]:
        """Return every run, oldest first."""
        return self._call(self._serving().store.all_runs()).result()

    def ended(self) -> list[str]:
        """Return the ids of the runs that have ended, in that order."""
        return list(self._serving().store.ended)

    async def connect(self, path: str) -> ClientConnection:
        """Open a connection to the broker's application, in the running loop."""
        client = ClientEnd()
        server = await asyncio.wrap_future(self._call(self._accept(path, client)))
        await client.opened(server.feed)
        return cast("ClientConnection", client)

    # --- On the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as exc:
            if self._ready.done():
                raise
            self._ready.set_exception(exc)

    async def _main(self) -> None:
        with TemporaryDirectory(prefix="runlane-") as folder:
            async with tested_broker(Path(folder), self._clock) as broker:
                self._loop = asyncio.get_running_loop()
                self._broker = broker
                self._app = create_app(broker.core)
                self._ready.set_result(None)
                await self._stop.wait()
                await self._hang_up()

    async def _accept(self, path: str, client: ClientEnd) -> ServerEnd:
        server = ServerEnd(path, client)
        task = asyncio.create_task(self._serve(server))
        self._connections[task] = server
        task.add_done_callback(lambda done: self._connections.pop(done, None))
        return server

    async def _serve(self, server: ServerEnd) -> None:
        assert self._app is not None
        try:
            await self._app(server.scope, server.receive, server.send)
        finally:
            server.end(None)

    async def _hang_up(self) -> None:
        for server in self._connections.values():
            server.end(Close(CloseCode.FORBIDDEN, "the test that this broker was for has ended"))
        if self._connections:
            await asyncio.wait(tuple(self._connections))

    # --- Between the threads -----------------------------------------------------------------------------

    def _serving(self) -> TestedBroker:
        assert self._broker is not None, "the broker has not begun"
        return self._broker

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        assert self._loop is not None, "the broker has not begun"
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _join(self, ended: Future[None]) -> None:
        if self._ready.exception() is None and self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        ended.set_result(None)
