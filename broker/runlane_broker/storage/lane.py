"""The lane for work that nobody waits for: when the writer does a step of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Entry = TypeVar("Entry")

#: Seconds. Longer rests would not make a database faster that is slow for other reasons.
LONGEST_REST: Final = 0.05
#: Seconds after which it is as if those who wrote last had never been there.
MEMORY: Final = 0.1
#: Seconds after others have been answered: what they do next comes soon, and is not to meet a chore at work.
QUIET: Final = 0.0006
#: Seconds that a chore waits where there are always others; then it does one step, in their transaction.
PATIENCE: Final = 0.02


class Lane(Generic[Entry]):
    """Chores in order, and when the next of them may begin. For the writer's thread alone."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._entries: deque[Entry] = deque()
        self._rested = 0.0
        self._quiet = 0.0
        self._met = -MEMORY

    def put(self, entry: Entry) -> None:
        """Add a chore."""
        if not self._entries:
            self._rested = max(self._rested, self._now())
        self._entries.append(entry)

    def due_in(self) -> float | None:
        """Return in how many seconds the next chore may begin; None if there is none."""
        return max(self._rested - self._now(), self._quiet - self._now(), 0.0) if self._entries else None

    def is_impatient(self) -> bool:
        """Say whether the next chore has waited too long for a moment when nobody writes."""
        return bool(self._entries) and self._now() >= self._rested + PATIENCE

    def take(self) -> Entry:
        """Remove the next chore."""
        return self._entries.popleft()

    def meet(self) -> None:
        """Others write."""
        self._met = self._now()

    def part(self) -> None:
        """Others have been answered."""
        self._quiet = self._now() + QUIET

    def rest(self, seconds: float) -> None:
        """Begin nothing for so many seconds, at most: a step has been done. No rest where nobody else writes."""
        now = self._now()
        self._rested = now + (min(seconds, LONGEST_REST) if now < self._met + MEMORY else 0.0)
