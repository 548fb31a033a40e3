"""What dispatch knows of a run, and a sorted collection of such runs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import msgspec

#: Runs that a session lost or released, and retries: before the scheduled ones of the same priority.
RETRY_LANE: Final = 0
SCHEDULED_LANE: Final = 1

#: A run's place in the order of its key; the smaller goes first.
Rank: TypeAlias = tuple[int, int, int, str]


class QueuedRun(msgspec.Struct, frozen=True, gc=False):
    """A dispatchable run: no more than its order needs. A struct without GC header, for there are many.

    The order within a key is `rank`: priority (higher first), lane (retry first), due time, id. Priority
    comes before lane, otherwise a few runs that always fail would starve every urgent one.
    """

    id: str
    task_key: str
    #: 0 to 9, higher first.
    priority: int
    #: `RETRY_LANE` or `SCHEDULED_LANE`.
    lane: int
    #: Microseconds since 1970, UTC.
    due: int

    @property
    def rank(self) -> Rank:
        """The place in the order of its key; the smaller goes first."""
        return (-self.priority, self.lane, self.due, self.id)


def rank_of(run: QueuedRun) -> Rank:
    """Return the rank of a run, as a key function."""
    return (-run.priority, run.lane, run.due, run.id)


class OrderedRuns:
    """Runs of one key, best first, each id once.

    A sorted list and an index by id. Taking the first moves the others down, which is one `memmove` (2 KiB at
    256 runs, 80 KiB at 10,000) and costs less than any tree of Python objects would.
    """

    __slots__ = ("_by_id", "_runs")

    def __init__(self, runs: Iterable[QueuedRun] = ()) -> None:
        self._by_id = {run.id: run for run in runs}
        self._runs = sorted(self._by_id.values(), key=rank_of)

    def __repr__(self) -> str:
        return f"<OrderedRuns {len(self)}>"

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._by_id

    def __iter__(self) -> Iterator[QueuedRun]:
        return iter(self._runs)

    def get(self, run_id: str) -> QueuedRun | None:
        """Return the run of this id, if it is here."""
        return self._by_id.get(run_id)

    def first(self) -> QueuedRun | None:
        """Return the best run."""
        return self._runs[0] if self._runs else None

    def last(self) -> QueuedRun | None:
        """Return the worst run."""
        return self._runs[-1] if self._runs else None

    def add(self, run: QueuedRun) -> None:
        """Put a run in its place; another version of it leaves."""
        self.discard(run.id)
        self._by_id[run.id] = run
        if self._runs and run.rank < self._runs[-1].rank:
            insort(self._runs, run, key=rank_of)
        else:
            self._runs.append(run)

    def discard(self, run_id: str) -> bool:
        """Take a run out, and say whether it was here."""
        run = self._by_id.pop(run_id, None)
        if run is None:
            return False
        del self._runs[bisect_left(self._runs, run.rank, key=rank_of)]
        return True

    def pop_first(self) -> QueuedRun:
        """Take the best run. Raises `IndexError` when there is none."""
        run = self._runs.pop(0)
        del self._by_id[run.id]
        return run

    def pop_last(self) -> QueuedRun:
        """Take the worst run. Raises `IndexError` when there is none."""
        run = self._runs.pop()
        del self._by_id[run.id]
        return run
