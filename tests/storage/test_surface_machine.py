"""Runs created, asked for states, leased, reported and deleted in any order, against a simple model.

The model is what a broker's memory would be: it hears outcomes and looks at nothing else. After every step it must
be what stands in the database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runlane.protocol.states import FINAL, StateType
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.orchestration.details import StateDetails
from runlane_broker.storage.operations.deleting import DeleteRun
from runlane_broker.storage.operations.leasing import FinishRun, LeaseRuns, Release, ReleaseRuns, StartRun
from runlane_broker.storage.operations.transitions import SetState
from runlane_broker.storage.queue_records import is_queue_key
from runlane_broker.storage.records import (
    Change,
    Creation,
    Freed,
    LeasedRun,
    Refusal,
    Reported,
    Status,
    Surface,
    Verdict,
)
from runlane_broker.storage.sqlite import connect
from runlane_broker.storage.tables import FLOW_RUN, TASK_RUN, RunKind

from ..support import SECOND, make_run, new_database
from .test_sqlite import open_database

S = StateType

LIMITS = {"one": 1, "two": 2, "none": 0}
#: States that lead on are asked for more often than those that end everything.
ASKED = st.sampled_from([*S, S.RUNNING, S.RUNNING, S.PENDING, S.SCHEDULED])
STARTS = st.sampled_from([S.SCHEDULED, S.SCHEDULED, S.SCHEDULED, *S])
KEYS = st.sampled_from([None, None, "a", "b"])


def never_synced(path: Path) -> sqlite3.Connection:
    """Open a file that needs to outlive nothing."""
    connection = connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


class SurfaceMachine(RuleBasedStateMachine):
    """`queued`, `leases` and `ended` are heard of; the ids alone are known."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.runs: list[str] = []
        self.flow_runs: list[str] = []
        #: When each run that waits comes due.
        self.queued: dict[str, int] = {}
        #: The attempt of each run that is held.
        self.leases: dict[str, int] = {}
        #: What cannot happen any more: leases that are over.
        self.over: list[tuple[str, int]] = []
        self.histories: dict[str, list[Any]] = {}

    @initialize()
    def begin(self) -> None:
        path = new_database(Path(self.stack.enter_context(TemporaryDirectory())))
        self.db = self.stack.enter_context(contextmanager(open_database)(path, connect=never_synced))
        self.holder = self.db.session()
        for tag, slots in LIMITS.items():
            self.db.limit(tag, slots)
        self.flow_runs = [self.db.running_flow_run(), self.db.flow_run()]

    def teardown(self) -> None:
        self.stack.close()

    # --- What is heard --------------------------------------------------------------------------------------

    def hear(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if is_queue_key(change.task_key):
                continue  # of a flow run
            if change.unqueued:
                del self.queued[change.run_id]
            if change.to_stop is not None:
                assert self.leases[change.run_id] == change.to_stop.attempt
            if change.ended is not None:
                assert self.leases[change.run_id] == change.ended.attempt
                self.end(change.run_id)
            if change.queued is not None:
                assert change.run_id not in self.queued
                self.queued[change.run_id] = change.queued.due

    def end(self, run_id: str) -> None:
        self.over.append((run_id, self.leases.pop(run_id)))

    # --- What happens ---------------------------------------------------------------------------------------

    @rule(
        type_=STARTS, flow=st.sampled_from([None, 0, 1]), deferred=st.booleans(), retries=st.integers(0, 2),
        delay=st.integers(-1, 2), tags=st.sets(st.sampled_from([*LIMITS, "free"]), max_size=2),
    )  # fmt: skip
    def create(
        self, type_: StateType, flow: int | None, deferred: bool, retries: int, delay: int, tags: set[str]
    ) -> None:
        due = self.db.clock.now() + delay * SECOND
        details = StateDetails(scheduled_time=due if type_ is S.SCHEDULED else None, deferred=deferred)
        flow_run_id = None if flow is None or not self.flow_runs else self.flow_runs[flow % len(self.flow_runs)]
        surface = Surface(Proposed(type_, details=details), flow_run_id)
        run = make_run(retries=retries, tags=tuple(sorted(tags)), due=due, surface=surface)
        (created,) = self.db.create(run)
        assert created.how is Creation.CREATED
        self.runs.append(run.id)
        if run.dispatched:
            self.queued[run.id] = due

    @precondition(lambda self: self.runs)
    @rule(
        data=st.data(), type_=ASKED, force=st.booleans(), delay=st.sampled_from([None, 0, 1]), key=KEYS,
        deferred=st.booleans(),
    )  # fmt: skip
    def set_state(
        self,
        data: st.DataObject,
        type_: StateType,
        force: bool,
        delay: int | None,
        key: str | None,
        deferred: bool,
    ) -> None:
        at = None if delay is None else self.db.clock.now() + delay * SECOND
        details = StateDetails(scheduled_time=at, cache_key=key, deferred=deferred)
        self.ask(TASK_RUN, data.draw(st.sampled_from(self.runs)), type_, force, details)

    @precondition(lambda self: self.flow_runs)
    @rule(data=st.data(), type_=ASKED, force=st.booleans())
    def set_state_of_flow_run(self, data: st.DataObject, type_: StateType, force: bool) -> None:
        self.ask(FLOW_RUN, data.draw(st.sampled_from(self.flow_runs)), type_, force, StateDetails())

    def ask(self, kind: RunKind, run_id: str, type_: StateType, force: bool, details: StateDetails) -> None:
        before = self.db.snapshot()
        outcome = self.db.do(SetState(kind, run_id, Proposed(type_, details=details), force))
        assert outcome is not None
        if not outcome.wrote:
            assert outcome.status is not Status.ACCEPT
            assert outcome.change is None
            assert self.db.snapshot() == before
        assert self.db.row(kind.name, run_id)["state_id"] == outcome.state.id
        if outcome.change is not None:
            self.hear([outcome.change])

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        """Whoever tries gets what waits and is due, and nothing else."""
        run_id = data.draw(st.sampled_from(self.runs))
        (outcome,) = self.db.do(LeaseRuns(self.holder, (run_id,)))
        if run_id in self.queued and self.queued[run_id] <= self.db.clock.now():
            assert isinstance(outcome, LeasedRun)
            del self.queued[run_id]
            self.leases[run_id] = outcome.attempt
        else:
            assert outcome is Refusal.TAKEN

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.leases)))
        verdict = self.db.do(StartRun(self.holder.session_id, run_id, self.leases[run_id], self.db.clock.now()))
        assert verdict in (Verdict.RECORDED, Verdict.CANCELLING)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), type_=st.sampled_from([S.COMPLETED, S.FAILED, S.CANCELLED]))
    def finish(self, data: st.DataObject, type_: StateType) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.leases)))
        report = self.report(run_id, self.leases[run_id], type_)
        assert report.verdict is Verdict.RECORDED
        self.end(run_id)
        if report.queued is not None:
            self.queued[run_id] = report.queued.due

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def finish_too_late(self, data: st.DataObject) -> None:
        run_id, attempt = data.draw(st.sampled_from(self.over))
        with self.db.unchanged():
            assert self.report(run_id, attempt, S.COMPLETED).queued is None

    def report(self, run_id: str, attempt: int, type_: StateType) -> Reported:
        at = self.db.clock.now()
        return self.db.do(FinishRun(self.holder.session_id, run_id, attempt, at, Proposed(type_), b"1"))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), lost=st.booleans())
    def release(self, data: st.DataObject, lost: bool) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.leases)))
        releases = (Release(run_id, self.leases[run_id], ""),)
        freed: Freed = self.db.do(ReleaseRuns(self.holder.session_id, releases, lost))
        self.end(run_id)
        self.queued.update({run.id: run.due for run in freed.queued})

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.runs))
        self.runs.remove(run_id)
        self.hear(self.db.do(DeleteRun(TASK_RUN, run_id)) or ())

    @precondition(lambda self: self.flow_runs)
    @rule(data=st.data())
    def delete_flow_run(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.flow_runs))
        self.flow_runs.remove(run_id)
        changes = self.db.do(DeleteRun(FLOW_RUN, run_id))
        assert changes is not None
        self.runs = [known for known in self.runs if known not in {change.run_id for change in changes}]
        self.hear(changes)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.db.clock.advance(seconds)

    # --- What holds -----------------------------------------------------------------------------------------

    @invariant()
    def the_database_is_sound(self) -> None:
        """No more slots than there are, none kept by who doesn't run: see the audit."""
        self.db.audit()

    @invariant()
    def what_was_heard_is_what_stands_there(self) -> None:
        waiting = "SELECT id, due FROM task_run WHERE state_type = 'SCHEDULED' AND withheld IS NULL"
        assert {row[0]: row[1] for row in self.db.query(waiting)} == self.queued
        held = "SELECT id, attempt FROM task_run WHERE session_id IS NOT NULL"
        assert {row[0]: row[1] for row in self.db.query(held)} == self.leases
        assert {row[0] for row in self.db.query("SELECT id FROM task_run")} == set(self.runs)

    @invariant()
    def a_history_only_grows(self) -> None:
        rows = self.db.query("SELECT * FROM task_run_state ORDER BY task_run_id, timestamp")
        histories: dict[str, list[Any]] = {}
        for row in rows:
            histories.setdefault(row[1], []).append(row)
        for run_id, history in histories.items():
            earlier = self.histories.get(run_id, [])
            assert history[: len(earlier)] == earlier
        self.histories = histories

    @invariant()
    def the_books_say_what_the_state_says(self) -> None:
        rows = self.db.query("SELECT state_type, start_time, end_time, run_count, total_run_time FROM task_run")
        for type_, started, ended, run_count, total in rows:
            assert (ended is not None) == (type_ in FINAL)
            assert total >= 0
            assert started is not None or (run_count == 0 and type_ != S.RUNNING)


TestSurfaceMachine = SurfaceMachine.TestCase
TestSurfaceMachine.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
