"""How many runs execute at once, and how many the broker may push."""

from __future__ import annotations

from collections.abc import Callable


class Slots:
    """A worker's places. `announce` tells the broker how many there are, whenever that changes.

    Code that does not stop keeps its place although its run has been reported: the worker has one slot less
    until it is done. Nothing at all may be pushed while the slots are paused, nor once they are closed.
    """

    def __init__(self, limit: int, announce: Callable[[int], None]) -> None:
        self._limit = self._announced = limit
        self._announce = announce
        self._taken = 0
        self._paused = self._closed = False
        self.stuck = 0  # places of code that goes on without its run

    def __repr__(self) -> str:
        return f"<Slots {self._taken} of {self._limit} taken, {self.stuck} stuck>"

    @property
    def usable(self) -> int:
        """How many places there are for runs."""
        return self._limit - self.stuck

    def take(self) -> bool:
        """Take a place, if one is free."""
        if self._taken >= self._limit:
            return False
        self._taken += 1
        return True

    def give_back(self) -> None:
        """Free a place."""
        self._taken -= 1

    def stick(self) -> None:
        """Note that a place stays taken though its run has ended."""
        self.stuck += 1
        self._tell()

    def unstick(self) -> None:
        """Free such a place: its code is done."""
        self.stuck -= 1
        self._taken -= 1
        self._tell()

    def pause(self, *, paused: bool) -> None:
        """Take no more runs for now, or take them again."""
        self._paused = paused
        self._tell()

    def close(self) -> None:
        """Take no more runs for good."""
        self._closed = True
        self._tell()

    def _tell(self) -> None:
        limit = 0 if self._paused or self._closed else self.usable
        if limit != self._announced:
            self._announced = limit
            self._announce(limit)
