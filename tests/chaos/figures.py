"""What a scenario found: figures to print, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class Figures:
    """Lines to print, and failures."""

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def say(self, name: str, value: object) -> None:
        self.lines.append(f"{name:<34} {value}")

    def demand(self, holds: bool, otherwise: str) -> None:
        """Note a failure unless this holds."""
        if not holds:
            self.failures.append(otherwise)

    def bound(self, name: str, seconds: Sequence[float], limit: float, *, strict: bool = True) -> None:
        """Say how long something took; at the 99th percentile it must be within the limit, where `strict`."""
        self.say(name, f"{spread(seconds)}, limit {limit:g} s")
        if strict:
            self.demand(
                bool(seconds) and percentile(seconds, 99) <= limit, f"{name}: {spread(seconds)} > {limit:g} s"
            )


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the value that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__trunc__() - 1)]


def spread(seconds: Sequence[float]) -> str:
    """Return p50, p99 and the most, as text."""
    if not seconds:
        return "none"
    p50, p99 = percentile(seconds, 50), percentile(seconds, 99)
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, most {max(seconds):.2f} s ({len(seconds)})"
