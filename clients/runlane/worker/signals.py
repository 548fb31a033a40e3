"""Signals: the first drains the worker, the second ends it at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Generator
from typing import Any, Final

from .worker import Worker

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_on_signals(worker: Worker) -> Generator[None]:
    """Let SIGINT and SIGTERM stop the worker while the block runs.

    For the main thread, within the event loop.
    """
    loop = asyncio.get_running_loop()

    def on_signal(*_: Any) -> None:
        loop.call_soon_threadsafe(worker.stop)

    # Not `loop.add_signal_handler`, which Windows has not.
    before = [signal.signal(number, on_signal) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
