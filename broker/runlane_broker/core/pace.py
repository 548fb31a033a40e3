"""How many runs a worker may be given that takes them one at a time. Pure: the caller says what time it is.

Such a worker acknowledges a run when it receives it, which says nothing of a free slot. Where it reports states,
the next run waits until it has said something of the last: so a full worker hoards nothing. One that never
reports is served by its acknowledgements; while these come quickly, its next runs are leased before they come.
"""

from __future__ import annotations

from typing import Final

#: How long the first run of a session may go unreported before the worker is taken for one that never reports.
INTRODUCTION_SECONDS: Final = 1.0
#: How long a worker that has no other run may keep silent of one: it has dropped it, and is free for another.
PATIENCE_SECONDS: Final = 10.0
#: No more is leased ahead than what a worker acknowledges within this time, nor than so many runs. Seconds.
AHEAD_SECONDS: Final = 0.05
MAX_AHEAD: Final = 64
#: How long a worker for which runs are leased ahead may leave one unacknowledged before others get those. Seconds.
SLOW_SECONDS: Final = 0.1
#: How long until it loses what nobody else asks for, too: it may expire, or something more urgent come. Seconds.
STUCK_SECONDS: Final = 1.0


class Pace:
    """What one worker was sent, has acknowledged, and has reported. Times are seconds, of one monotonic clock."""

    def __init__(self) -> None:
        #: The run that was sent and not acknowledged.
        self.sent: str | None = None
        self._sent_at = 0.0
        #: How long an acknowledgement takes: a moving average. Nothing is leased ahead before one has come.
        self._takes = AHEAD_SECONDS * 2
        self._silent: dict[str, float] = {}
        self._reported: set[str] = set()
        self._passed_over: set[str] = set()
        self._reports: bool | None = None

    def __repr__(self) -> str:
        return f"<Pace sent={self.sent} unreported={len(self._silent)} reported={len(self._reported)}>"

    @property
    def acknowledged(self) -> frozenset[str]:
        """The runs that the worker has taken."""
        return frozenset((*self._reported, *self._silent, *self._passed_over))

    @property
    def may_report(self) -> bool:
        """False: the worker is one that never says anything of its runs."""
        return self._reports is not False

    def adopt(self, run_ids: frozenset[str], silent: frozenset[str], now: float) -> None:
        """The worker has these runs. Those new to us it has told to an earlier broker, but for the `silent`."""
        new = run_ids - self.acknowledged
        self._silent.update(dict.fromkeys(new & silent, now))
        reported = new - silent
        self._reported |= reported
        if reported:
            self._reports = True

    def send(self, run_id: str, now: float) -> None:
        """A run was sent."""
        self.sent = run_id
        self._sent_at = now

    def acknowledge(self, now: float) -> bool:
        """The worker has received what was sent; False if nothing was."""
        if self.sent is None:
            return False
        if self.sent not in self._reported:
            self._silent[self.sent] = now
        self.sent = None
        self._takes += (min(now - self._sent_at, SLOW_SECONDS) - self._takes) / 2
        return True

    def report(self, run_id: str) -> None:
        """The worker has said something of a run."""
        self._reports = True
        self._silent.pop(run_id, None)
        self._passed_over.discard(run_id)
        self._reported.add(run_id)

    def leave(self, run_id: str, now: float) -> None:
        """A run is no longer the worker's. A slot may have become free, so what waits for one has new patience."""
        if self.sent == run_id:
            self.sent = None
        self._silent.pop(run_id, None)
        self._passed_over.discard(run_id)
        self._reported.discard(run_id)
        self._silent = dict.fromkeys(self._silent, now)

    def free_at(self, now: float) -> float | None:
        """Return when another run may be sent, perhaps now; None: not before something happens."""
        if self.sent is not None:
            return None
        if not self._silent or self._reports is False:
            return now
        since = max(self._silent.values())
        if self._reports is None:
            return max(since + INTRODUCTION_SECONDS, now)
        return None if self._reported else max(since + PATIENCE_SECONDS, now)

    @property
    def slow_at(self) -> float:
        """When the worker will have left what was sent unacknowledged for too long."""
        return self._sent_at + SLOW_SECONDS

    def keeps(self, now: float) -> bool:
        """Say whether what is leased ahead may stay with the worker while nobody else asks for it."""
        return self._reports is False and (self.sent is None or now < self._sent_at + STUCK_SECONDS)

    def ahead(self, now: float) -> int:
        """Return how many runs may be leased to the worker beyond the one that it is being sent."""
        if self._reports is not False or (self.sent is not None and now >= self.slow_at):
            return 0
        return int(min(AHEAD_SECONDS / max(self._takes, AHEAD_SECONDS / MAX_AHEAD), MAX_AHEAD))

    def pass_over(self, now: float) -> None:
        """The time that `free_at` has named is there: do not wait for these reports any longer."""
        free_at = self.free_at(now)
        if free_at is None or free_at > now:
            return
        if self._reports is None and self._silent:
            self._reports = False
        elif self._reports:
            self._passed_over.update(self._silent)
            self._silent.clear()
