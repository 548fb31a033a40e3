"""What happened to a key while rows for its window are being read: all that the read cannot know."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .runs import OrderedRuns, QueuedRun, Rank, rank_of


class RefillTicket:
    """One read of a key's due runs in progress. Opaque to callers: they hand it back with the rows.

    The rows are of an unknown moment after the ticket was made. So of every id that was added, taken,
    removed or finished since, memory knows better than the rows, and they are not asked about it.

    Runs that were added since and have no certain place in the window wait in `arrivals`, at most `capacity`
    of them. Of those that did not fit only the best rank is kept, the `horizon`: at and after it the order is
    unknown.
    """

    __slots__ = ("_touched", "arrivals", "began_stale", "capacity", "horizon", "stale_again")

    def __init__(self, *, capacity: int, began_stale: bool) -> None:
        self.capacity = capacity
        #: The window lacked rows that came due before the read began.
        self.began_stale = began_stale
        #: More rows came due since: this read may lack them.
        self.stale_again = False
        self.arrivals = OrderedRuns()
        self.horizon: Rank | None = None
        # Grows with the runs that move during one read: some thousands in the worst second.
        self._touched: set[str] = set()

    def __repr__(self) -> str:
        overflow = "" if self.horizon is None else " overflowed"
        return f"<RefillTicket arrivals={len(self.arrivals)} touched={len(self._touched)}{overflow}>"

    def touch(self, run_id: str) -> None:
        """Note that the rows are not to be asked about this run."""
        self._touched.add(run_id)

    def forget(self, run_id: str) -> bool:
        """Note that a run is no longer dispatchable, and say whether it was among the arrivals."""
        self._touched.add(run_id)
        return self.arrivals.discard(run_id)

    def arrive(self, run: QueuedRun) -> None:
        """Keep a dispatchable run that has no certain place yet."""
        if self.horizon is not None and run.rank >= self.horizon:
            return
        self.arrivals.add(run)
        if len(self.arrivals) > self.capacity:
            self.horizon = self.arrivals.pop_last().rank

    def merge(
        self, window: OrderedRuns, rows: Sequence[QueuedRun], *, limit: int, busy: Callable[[str], bool]
    ) -> tuple[list[QueuedRun], bool]:
        """Return every run whose place in the order is certain, best first, and whether there are no more."""
        limited = len(rows) >= limit
        merged = {run.id: run for run in rows if run.id not in self._touched and not busy(run.id)}
        merged.update((run.id, run) for run in self.arrivals)
        merged.update((run.id, run) for run in window)
        reach = self._reach(window, rows[-1].rank) if limited else None
        certain = (run for run in merged.values() if self._is_certain(run.rank, reach))
        return sorted(certain, key=rank_of), not limited and self.horizon is None

    def _reach(self, window: OrderedRuns, last_row: Rank) -> Rank:
        """Return the last rank up to which rows and window together hold every run."""
        tail = window.last()
        if tail is None or self.began_stale:
            return last_row
        return max(last_row, tail.rank)

    def _is_certain(self, rank: Rank, reach: Rank | None) -> bool:
        return (reach is None or rank <= reach) and (self.horizon is None or rank < self.horizon)
