"""Who waits for a run inside of another: that one holds a slot meanwhile, and its worker wants to know."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_waits: Final[ContextVar[Waits]] = ContextVar("runlane_waits")


class Waits:
    """What one execution waits for. `tell` hears, on any thread, that it begins to wait, and that it goes on."""

    def __init__(self, tell: Callable[[bool], None]) -> None:
        self._tell = tell
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


def tell_waits(tell: Callable[[bool], None]) -> None:
    """Have this told of what waits in the calling context from now on."""
    _waits.set(Waits(tell))


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
