"""Calls from any thread to an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

log: Final = logging.getLogger("runlane.worker")


class Mailbox:
    """What other threads want to be called on one event loop, in order.

    Waking a loop costs a system call and a change of threads, so it is done once for all that is posted before
    the loop has looked. What is posted before `open` is kept for it; after the loop's end it goes nowhere.
    """

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.copy_context()  # not that of whichever task posts
        self._woken = False  # the loop will look; set by whoever posts, taken back by the loop before it looks

    def __repr__(self) -> str:
        return f"<Mailbox {len(self._calls)} calls>"

    def open(self) -> None:
        """Deliver to the running loop from now on."""
        self._loop = asyncio.get_running_loop()
        if self._calls:
            self._wake(self._loop)

    def post(self, call: Callable[..., None], *args: Any) -> None:
        """Have this called on the loop, soon. From any thread, and from signal handlers; never waits."""
        self._calls.append((call, args))
        if not self._woken and self._loop is not None:
            self._wake(self._loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._woken = True
        try:
            loop.call_soon_threadsafe(self._look, context=self._context)
        except RuntimeError:
            log.debug("the loop is closed; %d calls go nowhere", len(self._calls))

    def _look(self) -> None:
        self._woken = False
        while self._calls:
            call, args = self._calls.popleft()
            try:
                call(*args)
            except Exception:
                log.exception("a call from another thread failed")
