"""The lane for work that nobody waits for: when the writer does some of it, and who may interrupt it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from .operations.base import Operation

Entry = TypeVar("Entry")

#: Seconds. Longer rests would not make a database faster that is slow for other reasons.
LONGEST_REST: Final = 0.05
#: Seconds after which it is as if those who wrote last had never been there.
MEMORY: Final = 0.1
#: Seconds after others have been answered: what they do next comes soon, and is not to meet a chore at work.
QUIET: Final = 0.0006
#: Seconds that a chore waits where there are always others; then it does one step, in their transaction.
PATIENCE: Final = 0.02


class Line(Protocol):
    """Those who stand behind a chore."""

    def waits(self) -> bool:
        """Say whether somebody waits, or comes while the chore has a rest."""
        ...

    def take(self) -> Sequence[Operation[Any]]:
        """Return the operations that came meanwhile: they go with the chore, in its transaction."""
        ...


class _Everybody:
    def waits(self) -> bool:
        return True

    def take(self) -> Sequence[Operation[Any]]:
        return ()


#: A chore does no more than a step, and nobody joins it.
EVERYBODY: Final[Line] = _Everybody()


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

    def rest(self, seconds: float) -> float:
        """Return how long to rest now: so many seconds at most, none where nobody else writes."""
        now = self._now()
        rest = min(seconds, LONGEST_REST) if now < self._met + MEMORY else 0.0
        self._rested = now + rest
        return rest
