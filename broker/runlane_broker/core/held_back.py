"""Runs that wait for a slot of a queue with a filter, which is not the one they are in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..clock import Clock
from ..dispatch import Dispatcher
from .due import DueClock

#: Microseconds until a window is read again that leaves such runs out, whether or not anything has been heard: a
#: filter takes a run no more when its tags are changed, or its deployment is deleted, and nobody says so.
LOOK_AGAIN: Final = 1_000_000


class HeldBack:
    """The work queues whose windows leave runs out, because a queue with a filter that takes them is full.

    Nothing is kept of the runs themselves: they wait in the database, and a refill leaves them out or finds them.
    """

    def __init__(self, clock: Clock, dispatcher: Dispatcher, due: DueClock) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._due = due
        self._keys: set[str] = set()
        self._released = 0

    def __repr__(self) -> str:
        return f"<HeldBack {len(self._keys)} keys>"

    def reading(self) -> Callable[[str], None]:
        """Note that a refill begins. What is returned is to be called with its key if it has left runs out."""
        released = self._released

        def left_out(key: str) -> None:
            if released != self._released:  # it may be older than that
                self._dispatcher.mark_due(key)
            elif self._dispatcher.has_demand(key):
                self._keys.add(key)
                self._due.note(key, self._clock.now() + LOOK_AGAIN)

        return left_out

    def release(self) -> None:
        """Note that a queue with a filter may have a slot again: the windows are read anew."""
        self._released += 1
        for key in self._keys:
            self._dispatcher.mark_due(key)
        self._keys.clear()
