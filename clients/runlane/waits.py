"""Who waits for a run inside of another: that one holds a slot meanwhile, and its worker wants to know."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

_waits: Final[ContextVar[Waits]] = ContextVar("runlane_waits")


class Waits:
    """What one execution waits for. `tell` hears, on any thread, that it begins to wait, and that it goes on.

    `checkpoint` raises in a plain function that is to stop, once.
    """

    def __init__(self, tell: Callable[[bool], None], checkpoint: Callable[[], None]) -> None:
        self._tell = tell
        self._checkpoint = checkpoint
        self._stop: Future[None] = Future()
        self._lock = threading.Lock()  # held while telling, too, so that the last word is true
        self._count = 0

    def __repr__(self) -> str:
        return f"<Waits {self._count}>"

    def add(self, by: int) -> None:
        """Note that it waits for one run more, or one less."""
        with self._lock:
            before, self._count = self._count, self._count + by
            if bool(before) != bool(self._count):
                self._tell(bool(self._count))

    def interrupt(self) -> None:
        """Note that the function is to stop: what it waits for, or will, is a checkpoint now. From any thread."""
        with self._lock:
            if not self._stop.done():
                self._stop.set_result(None)

    def pause(self, future: Future[Any]) -> None:
        """Wait in sync code for this; where the function is to stop, pass a checkpoint."""
        wait((future, self._stop), return_when=FIRST_COMPLETED)
        if not future.done():
            self._checkpoint()


def tell_waits(tell: Callable[[bool], None], checkpoint: Callable[[], None]) -> Waits:
    """Have this told of what waits in the calling context from now on."""
    waits = Waits(tell, checkpoint)
    _waits.set(waits)
    return waits


def pause(future: Future[Any]) -> None:
    """Let sync code wait for this, unless its task is to stop meanwhile: then it leaves as at a checkpoint."""
    waits = _waits.get(None)
    if waits is not None:
        waits.pause(future)


@contextmanager
def waiting() -> Generator[None]:
    """Wait for a run within the block. Outside of tasks nobody cares."""
    waits = _waits.get(None)
    if waits is None:
        yield
        return
    waits.add(1)
    try:
        yield
    finally:
        waits.add(-1)
