"""How much a peer may say that waits for no commit, or in vain: nothing else would hold it up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from runlane.protocol import messages as m

#: A peer may spend so much at once …
BURST: Final = 2500.0
#: … and so much a second. An honest worker beats once a second at most.
RATE: Final = 100.0
#: Who has as much of it left talks sparingly.
_SPARING: Final = 0.95
#: Who has not been of use yet pays so many times as much.
STRANGER: Final = 10.0
#: What a frame costs. A worker tells of each of its 1,000 runs' progress ten times a second at most;
#: who gives up thousands of runs that it waits for says so of each.
_COSTS: Final[Mapping[type[m.Frame], float]] = {
    m.Beat: 2.0,
    m.SetLimit: 2.0,
    m.Unwatch: 0.08,
    m.Progress: 0.01,
}


class Talk:
    """A bucket that empties with each such frame and fills with time. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._left = BURST
        self._since = monotonic()
        self._factor = STRANGER

    def __repr__(self) -> str:
        return f"<Talk, {self._left:.0f} left>"

    def allows(self, frame: m.Frame) -> bool:
        """Take note of a frame; False if it is one too many."""
        cost = _COSTS.get(type(frame))
        return cost is None or self.spend(cost)

    def spend(self, cost: float) -> bool:
        """Take note of something that was said in vain; False if that is too much."""
        now = self._monotonic()
        self._left = min(self._left + (now - self._since) * RATE, BURST) - cost * self._factor
        self._since = now
        return self._left >= 0

    def become_known(self) -> None:
        """It was of use: it may say more."""
        self._factor = 1.0

    @property
    def has_left(self) -> bool:
        """Whether it had not said too much when it last spoke."""
        return self._left >= 0

    @property
    def is_sparing(self) -> bool:
        """Whether it has said hardly anything of the kind lately."""
        return self._left + (self._monotonic() - self._since) * RATE > _SPARING * BURST
