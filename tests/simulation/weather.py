"""What a seed has in store. Each draws which faults there are at all: all at once, they would hide one another."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from runlane_broker.settings import Settings, Timers

from .disk import Moods
from .worker import Manners


@dataclass(frozen=True)
class Weather:
    """One seed's plan. Times in seconds."""

    calm: bool
    length: float
    runs: int
    keys: tuple[str, ...]
    workers: int
    limit: int
    batch: int
    latency: float
    settings: Settings
    moods: Moods
    manners: Manners
    idempotency: float
    resubmits: float
    delayed: float
    expires: float
    cancels: int
    #: What is done to whom, and when, in order.
    faults: tuple[tuple[float, str], ...] = field(default=())

    @classmethod
    def of(cls, source: random.Random) -> Weather:
        """Draw it."""
        length = source.uniform(15, 40)
        calm = source.random() < 0.12
        timers = Timers()
        if source.random() < 0.3:
            timers = replace(timers, silent=5.0, start=6.0)
        window = source.choice([1, 2, 4, 8, 256])
        settings = Settings(timers=timers, window_size=window, max_losses=source.choice([2, 5, 100]))
        return cls(
            calm=calm,
            length=length,
            runs=source.randint(20, 70),
            keys=("a", "b", "c")[: source.randint(1, 3)],
            workers=source.randint(1, 4),
            limit=source.choice([1, 2, 4, 10]),
            batch=source.choice([1, 3, 20]),
            latency=source.choice([0.001, 0.01, 0.05]),
            settings=settings,
            moods=_moods(source, calm=calm),
            manners=_manners(source),
            idempotency=source.choice([0.0, 0.3]),
            resubmits=source.choice([0.0, 0.2]),
            delayed=source.choice([0.0, 0.3]),
            expires=source.choice([0.0, 0.2]),
            cancels=0 if calm else source.choice([0, 5, 30]),
            faults=() if calm else _faults(source, length),
        )


def _moods(source: random.Random, *, calm: bool) -> Moods:
    moods = Moods(source.choice([0.001, 0.01, 0.1]), source.choice([0.001, 0.01, 0.2]))
    if calm or source.random() < 0.6:
        return moods
    return replace(
        moods,
        fails_before=source.choice([0.0, 0.05]),
        fails_after=source.choice([0.0, 0.05]),
        read_fails=source.choice([0.0, 0.1]),
    )


def _manners(source: random.Random) -> Manners:
    return Manners(
        starts_in=source.choice([0.01, 0.01, 1.0]),
        takes=source.choice([0.02, 0.3, 3.0]),
        slow_start=source.choice([0.0, 0.0, 0.05]),
        fails=source.choice([0.0, 0.3]),
        gives_back=source.choice([0.0, 0.1, 0.3]),
        insists=source.choice([0.0, 0.7]),
        returns_in=source.choice([0.8, 2.0]),
    )


#: How often each fault happens in a minute, where it happens at all.
_RATES = {
    "kill worker": 10,
    "pause worker": 6,
    "cut": 30,
    "stall": 10,
    "kill broker": 5,
    "pause broker": 4,
    "stop broker": 3,
    "lock": 6,
    "set clock": 4,
    "quit worker": 4,
}


def _faults(source: random.Random, length: float) -> tuple[tuple[float, str], ...]:
    chosen = [fault for fault in _RATES if source.random() < 0.35]
    planned: list[tuple[float, str]] = []
    for fault in chosen:
        at = 0.0
        while (at := at + source.expovariate(_RATES[fault] / 60)) < length:
            planned.append((at, fault))
    return tuple(sorted(planned))
