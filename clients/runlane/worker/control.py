"""The worker's side towards the broker, on a thread and an event loop of its own.

No task runs there, so none can keep it from beating, from hearing of a cancel, or from reporting what another
task has done. (But the interpreter's lock is one: code in C that holds it stops this thread, too, and belongs
into a task of `pool="process"`.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final

from ..settings import Settings
from .executor import Executor, Work
from .mailbox import Mailbox
from .session import Handlers, Session, Subscription
from .slots import Slots

log: Final = logging.getLogger("runlane.worker")

#: Seconds to wait for the verdicts of the last reports, at least.
VERDICT_SECONDS: Final = 5.0
#: Seconds to wait for a connection to say `quit` on, and then for the broker to close it.
GOODBYE_SECONDS: Final = 1.0


class Control:
    """Session, reporter, slots and executor: from `subscribe` to `quit`."""

    def __init__(self, settings: Settings, subscription: Subscription, drain_seconds: float) -> None:
        self._session = Session(settings, subscription)
        self._slots = Slots(subscription.limit, self._session.set_limit)
        self._drain_seconds = drain_seconds
        self._mailbox = Mailbox()
        self._stopping = asyncio.Event()
        self._main: asyncio.Task[Any] | None = None
        self._stops = 0

    def __repr__(self) -> str:
        return f"<Control {self._session!r}, {self._slots!r}>"

    # --- From any thread ---------------------------------------------------------------------------------

    @property
    def stops(self) -> int:
        """How often `stop` was called."""
        return self._stops

    @property
    def stuck(self) -> int:
        """Slots of code that goes on though its run has been reported."""
        return self._slots.stuck

    def max_payload_bytes(self) -> int:
        """Return what the broker takes at most as a result, or as an error."""
        return self._session.max_payload_bytes

    def start(self, work: Work, on_end: Callable[[], None]) -> Future[None]:
        """Begin; the future has the end, and `ConnectionFailed` where the broker will not have the worker.

        `on_end` is called on the thread, before that.
        """
        ended: Future[None] = Future()
        # A daemon: whatever ends the program without `stop` ends this, too.
        threading.Thread(
            target=_run, args=(self._work(work), on_end, ended), name="runlane control", daemon=True
        ).start()
        return ended

    def stop(self) -> None:
        """Drain; a second time, end at once."""
        self._stops += 1
        self._mailbox.post(self._stop, self._stops)

    # --- On the thread -----------------------------------------------------------------------------------

    def _stop(self, count: int) -> None:
        self._stopping.set()
        if count == 2 and self._main is not None:
            self._main.cancel()

    async def _work(self, work: Work) -> None:
        session = self._session
        executor = Executor(work, session.reporter, self._slots, session, self._mailbox.post)
        handlers = Handlers(executor.start, executor.cancel, executor.lose, executor.answered)
        self._main = asyncio.current_task()
        connection = asyncio.create_task(session.run(handlers), name="runlane session")
        self._mailbox.open()
        try:
            await self._until_stopped(connection)
            await self._drain(executor)
        except asyncio.CancelledError:
            log.info("ending at once: %d runs are given back", len(executor))
        finally:
            self._main = None  # from here on nothing can make it any quicker
            await executor.abort()
            await _end(session, connection, hurried=self._stops > 1)

    async def _until_stopped(self, connection: asyncio.Task[None]) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((stopping, connection), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if connection.done():
            connection.result()  # raises: a session ends by itself only for a reason

    async def _drain(self, executor: Executor) -> None:
        log.info("draining: %d runs have up to %g s", len(executor), self._drain_seconds)
        deadline = time.monotonic() + self._drain_seconds
        await executor.drain(self._drain_seconds)
        if len(executor):
            log.info("giving %d runs back: they have not ended within %g s", len(executor), self._drain_seconds)
        await executor.abort()
        with contextlib.suppress(TimeoutError):
            # A broker that restarts meanwhile is waited for: what it has not recorded, it would give to others.
            async with asyncio.timeout(max(VERDICT_SECONDS, deadline - time.monotonic())):
                await self._session.reporter.wait_empty()


def _run(main: Coroutine[Any, Any, None], on_end: Callable[[], None], ended: Future[None]) -> None:
    error: BaseException | None = None
    try:
        asyncio.run(main)
    except BaseException as exc:  # whatever it is, it is for whoever waits
        error = exc
    on_end()
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)


async def _end(session: Session, connection: asyncio.Task[None], *, hurried: bool) -> None:
    """Say goodbye, where there is somebody to say it to, or will be in a moment, and close."""
    if not connection.done():
        if not hurried:
            back = asyncio.create_task(session.back())
            await asyncio.wait((back, connection), timeout=GOODBYE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            back.cancel()
        if session.quit():
            await asyncio.wait((connection,), timeout=GOODBYE_SECONDS)
        connection.cancel()
    await asyncio.wait((connection,))
