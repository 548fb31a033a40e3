"""Where plain functions run: threads of the worker's own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Returned:
    """What a function returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """What a function raised. Kept as a value: futures treat some exceptions as their own."""

    error: BaseException


class Threads:
    """A pool that is told apart from the event loop's default one, so that neither starves the other."""

    def __init__(self, limit: int) -> None:
        self._pool = ThreadPoolExecutor(max(1, limit), thread_name_prefix="runlane")

    async def call(
        self, function: Callable[[], Any], on_orphaned: Callable[[], Callable[[], None]]
    ) -> Returned | Raised:
        """Run the function in a thread, in the caller's context.

        A thread cannot be stopped. Where the caller is cancelled first, `on_orphaned` is called, and what it
        returns once the thread is done.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        future = self._pool.submit(context.run, _outcome_of, function)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel() and not future.done():
                _when_done(future, loop, on_orphaned())
            raise

    def close(self) -> None:
        """Take no more; threads at work are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _outcome_of(function: Callable[[], Any]) -> Returned | Raised:
    try:
        return Returned(function())
    except BaseException as exc:  # a task that calls sys.exit() has failed; the worker goes on
        return Raised(exc)


def _when_done(future: Future[Any], loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    def tell(_: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody to tell
            loop.call_soon_threadsafe(callback)

    future.add_done_callback(tell)
