"""What is known of the services, for whoever wants to see it. They write it themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..clock import Micros


@dataclass(slots=True)
class ServiceState:
    """How a service is doing. `counts` are those of its last run, `totals` of all; `interval` is in seconds."""

    name: str
    interval: float
    enabled: bool = True
    running: bool = False
    runs: int = 0
    errors: int = 0
    last_run: Micros | None = None
    last_seconds: float | None = None
    last_error: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    totals: dict[str, int] = field(default_factory=dict[str, int])

    def ran(self, at: Micros, seconds: float, counts: Mapping[str, int]) -> None:
        """Note a run that did these things."""
        self.runs += 1
        self.last_run, self.last_seconds, self.counts = at, seconds, counts
        for name, count in counts.items():
            self.totals[name] = self.totals.get(name, 0) + count

    def failed(self, at: Micros, seconds: float, error: BaseException) -> None:
        """Note a run that failed."""
        self.runs += 1
        self.errors += 1
        self.last_run, self.last_seconds = at, seconds
        self.last_error = f"{type(error).__name__}: {error}"


class ServiceBoard:
    """All services of this broker, by name, in the order in which they were put up."""

    def __init__(self) -> None:
        self._states: dict[str, ServiceState] = {}

    def __iter__(self) -> Iterator[ServiceState]:
        return iter(tuple(self._states.values()))

    def add(self, state: ServiceState) -> None:
        """Put a service up."""
        self._states[state.name] = state
