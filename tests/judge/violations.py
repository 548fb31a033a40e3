"""What may be wrong with a history."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of violations."""

    LOST = "lost"  # acknowledged, and gone or waiting for ever
    STUCK = "stuck"  # held by somebody for ever
    PHANTOM = "phantom"  # there, or executed, and never submitted; COMPLETED, and never executed
    UNCOMMITTED = "uncommitted"  # pushed under a lease that the database does not know
    DOUBLE_COMPLETION = "double completion"  # two reports of a final end were recorded
    STALE_REPORT = "stale report"  # a report by somebody who did not hold the run was written
    UNWRITTEN_VERDICT = "unwritten verdict"  # "recorded", and the history knows nothing of it
    WRONG_VERDICT = "wrong verdict"  # "lost", and the report had been written
    NO_VERDICT = "no verdict"  # a report was never answered
    ATTEMPT = "attempt"  # attempts that do not go 1, 2, 3, ..., or one that was delivered twice
    ILLEGAL_HISTORY = "illegal history"  # a forbidden transition, no order in time, a head that is not the row's
    REWRITTEN_HISTORY = "rewritten history"  # a state that was there once is another one now, or gone
    IDEMPOTENCY = "idempotency"  # one key, two runs; or one id, two payloads
    CANCELLED_START = "start after cancel"
    OVER_LIMIT = "over limit"  # more in flight to a session than it has slots
    ORDER = "order"
    TOO_EARLY = "too early"  # delivered again before the time to which it was put off
    REDELIVERY = "redelivery"  # delivered again, and nothing had happened to the one before
    END_CHANGED = "end changed"  # somebody was told of an end that is not the run's
    UNTOLD = "untold"  # a watcher was not told, or told more than once


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not happen. `at` is when it showed, in the history's seconds, if that is known."""

    kind: Kind
    run: str
    what: str
    at: float | None = None

    def __str__(self) -> str:
        when = "" if self.at is None else f" at {self.at:.6f}"
        return f"{self.kind}: run {self.run}{when}: {self.what}"
