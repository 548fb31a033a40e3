"""The in-memory window over the dispatchable runs of one task key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from .refill import RefillTicket
from .runs import RETRY_LANE, SCHEDULED_LANE, OrderedRuns, QueuedRun

__all__ = ["DEFAULT_WINDOW_SIZE", "RETRY_LANE", "SCHEDULED_LANE", "QueuedRun", "RefillTicket", "TaskQueue"]

#: Runs of one key kept in memory: enough to outlast a refill (a few ms) at full speed.
DEFAULT_WINDOW_SIZE: Final = 256

#: A window that is not complete is refilled when it is down to this part of its size.
_LOW_WATER: Final = 4


class TaskQueue:
    """The first n dispatchable runs of one key, n <= `size`: a window over the database, which is the truth.

    Dispatchable: committed, due, and neither reserved nor leased. The window is *spilled* when the database
    may hold more runs after its tail, as it does at first, when nothing is known; and *stale* when the
    database may hold more runs anywhere, because scheduled ones came due. While it is neither, it is
    `complete`.

    Every change keeps the window the exact beginning of the order (but for what made it stale), therefore
    `pop` is always right: a run that ranks before the tail has its place; one after it has none once the
    window is spilled.
    """

    __slots__ = ("_refill", "_spilled", "_stale", "_window", "key", "size")

    def __init__(self, key: str, size: int = DEFAULT_WINDOW_SIZE) -> None:
        if size < 1:
            raise ValueError(f"a window holds at least one run, not {size}")
        self.key = key
        self.size = size
        self._window = OrderedRuns()
        self._spilled = True
        self._stale = False
        self._refill: RefillTicket | None = None

    def __repr__(self) -> str:
        flags = [
            *(["spilled"] if self._spilled else []),
            *(["stale"] if self._stale else []),
            *([f"refilling arrivals={len(self._refill.arrivals)}"] if self._refill else []),
        ]
        return f"<TaskQueue {self.key!r} {len(self)}/{self.size} {' '.join(flags) or 'complete'}>"

    def __len__(self) -> int:
        return len(self._window)

    def __iter__(self) -> Iterator[QueuedRun]:
        """Look at the window, best first."""
        return iter(self._window)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._window

    @property
    def complete(self) -> bool:
        """Whether no dispatchable run of the key is outside of the window."""
        return not (self._spilled or self._stale)

    @property
    def wants_refill(self) -> bool:
        """Whether rows should be read now: none are being read, and the window is stale or runs low."""
        if self._refill is not None:
            return False
        return self._stale or (self._spilled and len(self) <= self.size // _LOW_WATER)

    @property
    def refilling(self) -> bool:
        """Whether rows are being read."""
        return self._refill is not None

    def peek(self) -> QueuedRun | None:
        """Return the best run, and leave it."""
        return self._window.first()

    def get_nowait(self) -> QueuedRun | None:
        """Take the best run; `None` when the window is empty, which says nothing about the database."""
        if not self._window:
            return None
        run = self._window.pop_first()
        self.touch(run.id)
        return run

    def put(self, run: QueuedRun) -> None:
        """Take notice of a run that is dispatchable now. The same run again changes nothing."""
        if self._window.get(run.id) == run:
            return
        self.remove(run.id)
        if self._spilled and not self._ranks_before_tail(run):
            self._spill(run)
            return
        self._window.add(run)
        self._shrink()

    def resize(self, size: int) -> None:
        """Keep so many from now on, of both lanes together."""
        self.size = size
        self._shrink()

    def put_back(self, run: QueuedRun) -> None:
        """Return a run that was popped and not leased to its place."""
        self.put(run)

    def remove(self, run_id: str) -> bool:
        """Forget a run that is no longer dispatchable (cancelled, deleted, leased). False: not here."""
        arrived = self._refill is not None and self._refill.forget(run_id)
        return self._window.discard(run_id) or arrived

    def touch(self, run_id: str) -> None:
        """Note that a run changed place: rows that are being read know less about it than memory."""
        if self._refill is not None:
            self._refill.touch(run_id)

    def mark_stale(self) -> None:
        """Note that the database may hold new runs of any rank: scheduled ones came due."""
        self._stale = True
        if self._refill is not None:
            self._refill.stale_again = True

    def reload(self) -> None:
        """Note that the database knows better which runs are dispatchable: the window is read anew.

        So is what is being read, for that may be older.
        """
        self._window = OrderedRuns()
        self._spilled = True
        self._refill = None

    def begin_refill(self) -> RefillTicket:
        """Begin a refill: the caller reads rows *after* this call, and gives them to `apply_refill`."""
        assert self._refill is None, "one refill at a time"
        self._refill = RefillTicket(capacity=self.size, began_stale=self._stale)
        return self._refill

    def apply_refill(
        self, ticket: RefillTicket, rows: Sequence[QueuedRun], *, limit: int, busy: Callable[[str], bool]
    ) -> bool:
        """Merge rows into the window, and say whether they were: those of an unknown ticket are ignored.

        `rows` are the first `limit` due runs of the key in the order of rank, fewer when there are no more.
        `busy` tells the ids that are reserved or in flight.
        """
        if ticket is not self._refill:
            return False
        certain, complete = ticket.merge(self._window, rows, limit=limit, busy=busy)
        self._window = OrderedRuns(certain[: self.size])
        self._spilled = not complete or len(certain) > self.size
        self._stale = ticket.stale_again
        self._refill = None
        return True

    def abandon_refill(self, ticket: RefillTicket) -> None:
        """Give a refill up, because the read failed. An unknown ticket is ignored.

        Its arrivals had no place in the window and have none now; they are in the database, and the window is
        marked as spilled since the first of them.
        """
        if ticket is self._refill:
            self._refill = None

    def _ranks_before_tail(self, run: QueuedRun) -> bool:
        tail = self._window.last()
        return tail is not None and run.rank < tail.rank

    def _shrink(self) -> None:
        while len(self._window) > self.size:
            self._spill(self._window.pop_last())

    def _spill(self, run: QueuedRun) -> None:
        """Leave a run to the database, and to the refill in progress, which may be too old to have it."""
        self._spilled = True
        if self._refill is not None:
            self._refill.arrive(run)
