"""A history, sorted by what it is about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from .events import Event, Quiet, RunRow, Snapshot, StateRow

E = TypeVar("E")

FINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


@dataclass
class Evidence:
    """What the questions are asked of."""

    events: list[Event]
    snapshots: list[Snapshot] = field(default_factory=list)
    quiet: bool = False
    #: The last snapshot: runs by id, and their states, oldest first.
    runs: dict[str, RunRow] = field(default_factory=dict)
    states: dict[str, list[StateRow]] = field(default_factory=dict)
    _by_type: dict[type, list[Any]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, history: Iterable[Event]) -> Evidence:
        """Sort a history. Raises `ValueError` if it has no snapshot: there would be nothing to compare with."""
        evidence = cls(list(history))
        for event in evidence.events:
            evidence._by_type[type(event)].append(event)
        evidence.snapshots = evidence.all(Snapshot)
        evidence.quiet = bool(evidence.all(Quiet))
        if not evidence.snapshots:
            raise ValueError("a history needs a snapshot of the database at its end")
        last = evidence.snapshots[-1]
        evidence.runs = {row.id: row for row in last.runs}
        evidence.states = states_by_run(last)
        return evidence

    def all(self, kind: type[E]) -> list[E]:
        """All events of a kind, in their order."""
        return self._by_type.get(kind, [])


def states_by_run(snapshot: Snapshot) -> dict[str, list[StateRow]]:
    """Return the states of each run, oldest first."""
    found: dict[str, list[StateRow]] = defaultdict(list)
    for state in sorted(snapshot.states, key=lambda state: (state.timestamp, state.id)):
        found[state.run].append(state)
    return dict(found)
