"""What is done to whom and when. Pure: the same seed gives the same schedule."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Kind:
    """A fault: how often it is drawn, and how long it lasts at the default timers (`least` to `most` seconds)."""

    name: str
    weight: int
    least: float = 0.0
    most: float = 0.0
    needs_disk: bool = False


#: Stops and locks last from a moment to several times what ends a session (6 s of silence, 5 s of grace).
KINDS: Final = (
    Kind("broker-kill", 12),
    Kind("broker-term", 6),
    Kind("broker-stop", 6, 0.3, 20.0),
    Kind("worker-kill", 20),
    Kind("worker-term", 8),
    Kind("worker-stop", 12, 0.5, 40.0),
    Kind("producer-kill", 8),
    Kind("producer-stop", 4, 0.5, 10.0),
    Kind("reset", 6),
    Kind("close", 4),
    Kind("blackhole", 5),
    Kind("truncate", 5),
    Kind("outage", 4, 0.5, 15.0),
    Kind("slow", 4, 0.5, 5.0),
    Kind("locked", 4, 0.5, 8.0),
    Kind("full", 4, 0.5, 8.0, needs_disk=True),
)
#: The most that is waited before a fault, in seconds.
LONGEST_WAIT: Final = 2.0


@dataclass(frozen=True)
class Step:
    """Wait, then do this. `chance` in [0, 1) decides what else there is to decide (which worker, say)."""

    number: int
    wait: float
    kind: str
    seconds: float
    chance: float


def schedule(seed: int, cycles: int, scale: float = 1.0, *, disk: bool = True) -> Iterator[Step]:
    """Yield so many steps. `scale` is that of the timers; `disk`: whether the disk can be filled.

    What the site lacks is left out of the draw and changes nothing else, and a longer schedule begins as a
    shorter one does.
    """
    chance = random.Random(seed)
    weights = [kind.weight if disk or not kind.needs_disk else 0 for kind in KINDS]
    for number in range(1, cycles + 1):
        (kind,) = chance.choices(KINDS, weights)
        yield Step(
            number=number,
            wait=chance.uniform(0.0, LONGEST_WAIT) * max(scale, 0.25),
            kind=kind.name,
            seconds=chance.uniform(kind.least, kind.most) * scale,
            chance=chance.random(),
        )
