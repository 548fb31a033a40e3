"""Recording what clients report of the runs that they execute and retry by themselves.

A report says what has happened, so nothing is refused; but not everything counts. It names no attempt: whether it
comes from the holder of a run is known from whose runs its connection has reported before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from runlane.protocol.states import FINAL, StateType

from ...orchestration.decide import decide
from ...orchestration.decisions import Abort, Accept, Decision, Proposed, Reject, Write
from ...orchestration.facts import Facts
from ...orchestration.facts import Lease as HeldBy
from ...orchestration.policies import REPORTED_TASK
from ...orchestration.runs import Bookkeeping, Retries, Run, RunKind
from ..queries import transitions as qt
from ..records import PREFECT, WAITS_FOR_RUNS, Change, NewRunRecord, Surface
from ..tables import TASK_RUN
from ..transaction import Transaction
from .base import Operation
from .creating import insert_reported, of_that_name
from .deciding import append_state, read_flow
from .transitions import RunRow, read_row, settle


@dataclass(frozen=True, slots=True)
class ReportedState:
    """A state that a client says a run is in since `occurred` (microseconds UTC).

    `id` is the client's own for the report. `run` is what is known of the run, should it not be there yet; the
    state stands in its `surface`.
    """

    id: str
    occurred: int
    run: NewRunRecord
    surface: Surface

    @property
    def proposed(self) -> Proposed:
        """The state."""
        return self.surface.initial


class Recorded(NamedTuple):
    """What has become of reports: what follows, in order, and whose runs the connection reports."""

    changes: tuple[Change, ...]
    session_id: str | None


@dataclass(frozen=True, slots=True)
class RecordReports(Operation[Recorded]):
    """Record reports of one connection, in order. A report that is there already changes nothing.

    `session_id`: the session whose runs the connection reports, if that is known. If not, it may turn out to be
    one of the `candidates`, or any where these are None.
    """

    reports: tuple[ReportedState, ...]
    session_id: str | None = None
    candidates: frozenset[str] | None = None

    @property
    def weight(self) -> int:
        """How many reports."""
        return len(self.reports)

    @property
    def size(self) -> int:
        """Bytes of data."""
        return sum(len(report.proposed.data or b"") for report in self.reports)

    def execute(self, tx: Transaction) -> Recorded:
        """Record each."""
        recorder = _Recorder(tx, self.session_id, self.candidates)
        for report in self.reports:
            recorder.record(report)
        return Recorded(tuple(recorder.changes), recorder.session_id)


class _Recorder:
    """Records reports, and learns meanwhile from whom they are."""

    def __init__(self, tx: Transaction, session_id: str | None, candidates: frozenset[str] | None) -> None:
        self._tx = tx
        self._candidates = candidates
        self.session_id = session_id
        self.changes: list[Change] = []

    def record(self, report: ReportedState) -> None:
        """Write a report: into the run, or only into its history."""
        self._tx.flush()
        if self._tx.row(qt.has_state, {"id": report.id}) is not None:
            return
        row = read_row(self._tx, TASK_RUN, report.run.id)
        if row is None and (known_as := of_that_name(self._tx, report.run)) is not None:
            row = read_row(self._tx, TASK_RUN, known_as)
        # A clock that is ahead must not date what comes after it; and what is before 1970 is no time of ours.
        at = min(max(report.occurred, 1), self._tx.now)
        if row is None:
            self._insert(report, at)
            return
        self._learn(row, report.proposed)
        decision = self._decide(row, report.proposed, at)
        if isinstance(decision, Accept | Reject):
            outcome = settle(self._tx, TASK_RUN, row, decision, REPORTED_TASK, report.id)
            assert outcome is not None, "nobody else writes in this transaction"
            if outcome.change is not None:
                self.changes.append(outcome.change)
        else:
            write = Write(report.proposed, at, Bookkeeping())
            append_state(self._tx, qt.OF_TASK_RUNS, row.id, write, state_id=report.id, attempt=row.attempt)

    def _learn(self, row: RunRow, proposed: Proposed) -> None:
        """Whoever first says that a leased run has begun, or has ended, is its holder's process.

        That is certain of a run that nobody had before. Of another it may be one that has lost it, and is taken
        for its holder until he says something of a run of his own.
        """
        if row.session_id is None or row.dialect != PREFECT or proposed.type not in _OF_HOLDERS:
            return
        unknown = self.session_id is None and (self._candidates is None or row.session_id in self._candidates)
        if unknown or row.attempt == 1:
            self.session_id = row.session_id

    def _decide(self, row: RunRow, proposed: Proposed, at: int) -> Decision:
        from_holder = row.session_id is not None and row.session_id == self.session_id
        if proposed.type not in FINAL and not _counts(row, proposed, at, from_holder=from_holder):
            return Abort("It goes into the history.")
        lease = None if row.session_id is None else row.lease() or HeldBy.PREFECT
        facts = Facts(lease=lease, from_holder=from_holder)
        return decide(row.run(TASK_RUN), proposed, facts, REPORTED_TASK, at, at)

    def _insert(self, report: ReportedState, at: int) -> None:
        surface = report.surface
        if surface.flow_run_id is not None and read_flow(self._tx, surface.flow_run_id) is None:
            surface = replace(surface, flow_run_id=None)
        run = report.run
        retries = Retries(run.retries, run.retry_delay, run.retry_jitter)
        new = Run(run.id, RunKind.TASK, None, retries=retries, flow_run_id=surface.flow_run_id)
        decision = decide(new, report.proposed, Facts(from_holder=True), REPORTED_TASK, at, at)
        assert isinstance(decision, Accept), "nothing is in the way of a new run"
        self.changes.append(insert_reported(self._tx, run, surface, decision.write, report.id))


#: What only the process says that executes the run; SCHEDULED is said by who submits it, too.
_OF_HOLDERS: Final = frozenset({StateType.PENDING, StateType.RUNNING, StateType.COMPLETED, StateType.FAILED})

#: How far a run is that its holder executes. What is less far has been overtaken.
_PROGRESS: Final = {StateType.PENDING: 0, StateType.RUNNING: 1, StateType.SCHEDULED: 1, StateType.PAUSED: 1}


def _counts(row: RunRow, proposed: Proposed, at: int, *, from_holder: bool) -> bool:
    """Say whether a state that is no end is the one that the run is in now."""
    if from_holder:
        now, then = _PROGRESS.get(proposed.type), _PROGRESS.get(StateType(row.state_type))
        return now is not None and then is not None and now >= then
    if row.session_id is not None or row.is_queued or row.withheld == WAITS_FOR_RUNS:
        return False  # somebody else executes it, or will
    return at > row.state_timestamp
