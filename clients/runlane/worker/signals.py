"""Signals: the first drains the worker, the second ends it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from typing import Any, Final

from .worker import Worker

#: What tells a program to end. SIGBREAK is what a supervisor can send on Windows, which knows no SIGTERM.
SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
)


@contextlib.contextmanager
def stop_on_signals(worker: Worker) -> Generator[None]:
    """Let SIGINT and SIGTERM stop the worker while the block runs.

    Elsewhere than in the main thread nothing is done: Python lets no other thread handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(*_: Any) -> None:
        worker.stop()

    # Not `loop.add_signal_handler`: Windows has none, and it waits for the loop, which a task may block.
    before = [signal.signal(number, on_signal) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
