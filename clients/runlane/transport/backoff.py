"""How long to wait before the next attempt to connect. Pure: the caller brings time and chance."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final

#: Seconds past the broker's own grace during which a resume is still tried: clocks and frames are late.
RESUME_MARGIN: Final = 5.0
#: Seconds between two attempts while a session may be resumed. With full jitter alone, 15 to 27 % come too late.
RESUME_RETRY: Final = (0.1, 0.5)
#: Seconds, the least and the most, between two attempts after that.
RETRY: Final = (0.2, 30.0)
#: Of the grace, the most between two attempts of whoever holds runs: it runs from when a broker is back, whenever
#: that is, and has to be met with room for another attempt.
HOLDING_SHARE: Final = 1 / 3

#: Seconds that an attempt to connect may take.
OPEN_SECONDS: Final = 5.0

_SECONDS = re.compile(r"\d+(?:\.\d+)?")


def retry_delay(
    failures: int,
    lost_for: float,
    resume_seconds: float | None,
    uniform: Callable[[float, float], float] = random.uniform,
    *,
    holds_runs: bool = False,
) -> float:
    """Return the seconds to wait after `failures` failed attempts in a row (0: the connection was just lost).

    `lost_for` is the time since the connection was lost, `resume_seconds` the broker's grace (`None`: there
    is nothing to resume). Within the grace the pace is even and quick; after it, full jitter that doubles. For
    whoever holds runs that ends at a third of the grace: whenever the broker is back, it gives it to them anew.
    """
    if resume_seconds is not None and lost_for < resume_seconds + RESUME_MARGIN:
        return uniform(*RESUME_RETRY)
    least, most = RETRY
    if holds_runs and resume_seconds is not None:
        most = min(most, max(least, resume_seconds * HOLDING_SHARE))
    ceiling = min(most, least * 2.0 ** min(failures + 1, 20))
    return uniform(least, ceiling)


def open_seconds(lost_for: float, resume_seconds: float | None) -> float:
    """Return the seconds that an attempt may take, `lost_for` seconds after the connection was lost.

    Within the grace for a resume a third of it: an attempt that hangs leaves time for two more. After it, as long
    as a slow network may need.
    """
    if resume_seconds is None or lost_for >= resume_seconds:
        return OPEN_SECONDS
    return min(OPEN_SECONDS, resume_seconds / 3)


def seconds_in(reason: str) -> float:
    """Return the waiting time that the reason of a 4429 names, at most 60 s; 0 where it names none."""
    found = _SECONDS.search(reason)
    return min(60.0, float(found[0])) if found else 0.0
