"""What every database must do with states that somebody asks for: create, decide, write, rename, delete, limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import msgspec
import pytest

from runlane.protocol.states import FINAL, StateType
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.orchestration.details import StateDetails
from runlane_broker.orchestration.policies import MARK_LATE
from runlane_broker.storage.operations.base import Operation
from runlane_broker.storage.operations.changing import ChangeRun
from runlane_broker.storage.operations.creating import CreateRuns
from runlane_broker.storage.operations.creating_flow_runs import CreateFlowRun
from runlane_broker.storage.operations.deleting import DeleteRun
from runlane_broker.storage.operations.leasing import LeaseRuns, Release, ReleaseRuns
from runlane_broker.storage.operations.limits import DeleteLimit, ResetLimit, SetLimit
from runlane_broker.storage.operations.showing import shown_run
from runlane_broker.storage.operations.transitions import SetState
from runlane_broker.storage.records import (
    PREFECT,
    RETRY_LANE,
    SCHEDULED_LANE,
    Change,
    Created,
    Creation,
    FinalRun,
    Lease,
    LeasedRun,
    NewRunRecord,
    QueuedRecord,
    Refusal,
    Reported,
    Status,
    Surface,
    Verdict,
)
from runlane_broker.storage.run_records import RunRecord
from runlane_broker.storage.tables import FLOW_RUN, TASK_RUN
from runlane_broker.storage.transaction import Transaction

from ..support import SECOND, START, make_run, new_id
from .database import COMPLETED, Database

S = StateType


def asked(type_: StateType, flow_run_id: str | None = None, **details: Any) -> Surface:
    """What is asked for with a run: its first state."""
    return Surface(Proposed(type_, details=StateDetails(**details)), flow_run_id)


def task_run(db: Database, type_: StateType = S.PENDING, **changes: Any) -> str:
    """Create a run in any state; its id."""
    flow_run_id = changes.pop("flow_run_id", None)
    details = changes.pop("details", {})
    return db.queued(surface=asked(type_, flow_run_id, **details), **changes)


@dataclass(frozen=True, slots=True)
class Shown(Operation[RunRecord | None]):
    """Read a run as it is shown."""

    run_id: str

    def execute(self, tx: Transaction) -> RunRecord | None:
        """Read it, with what was put off."""
        tx.flush()
        return shown_run(tx, self.run_id)


class SurfaceConformance:
    """Operations go in, records come out; nothing here knows which database it is."""

    @pytest.fixture
    def db(self) -> Iterator[Database]:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _audited(self, db: Database) -> Iterator[None]:
        yield
        db.audit()

    # --- Creating task runs ---------------------------------------------------------------------------------

    def test_a_task_run_keeps_all_that_was_said_of_it(self, db: Database) -> None:
        flow_run = db.flow_run(labels={"team": "a", "kept": 1})
        details = StateDetails(scheduled_time=START + 5, task_parameters_id="p", others={"new": [1]})
        surface = Surface(
            Proposed(S.SCHEDULED, "Soon", "by hand", b'{"a": 1}', details),
            flow_run,
            "v1",
            "cache",
            START + 9,
            {"kept": 2},
            {"x": [{"input_type": "task_run", "id": "u"}]},
        )
        run = make_run(surface=surface, dynamic_key="7")
        assert db.create(run) == (Created(run.id, Creation.CREATED),)
        row = db.row("task_run", run.id)
        assert (row["flow_run_id"], row["task_version"], row["cache_key"]) == (flow_run, "v1", "cache")
        assert (row["cache_expiration"], row["due"], row["expected_start_time"]) == (
            START + 9,
            START + 5,
            START + 5,
        )
        labels = f'"team":"a","kept":2,"prefect.flow-run.id":"{flow_run}"'
        assert row["labels"] == f'{{"prefect.flow.id":"{db.flow()}",{labels}}}'
        assert row["task_inputs"] == '{"x":[{"input_type":"task_run","id":"u"}]}'
        (state,) = db.history(run.id)
        assert (state.type, state.name, state.message, state.data) == (S.SCHEDULED, "Soon", "by hand", b'{"a": 1}')
        assert state.details == msgspec.structs.replace(details, flow_run_id=flow_run, task_run_id=run.id)
        assert state.due == START + 5

    @pytest.mark.parametrize("type_", S)
    def test_a_task_run_is_created_in_any_state_with_its_books(self, db: Database, type_: StateType) -> None:
        run_id = task_run(db, type_, parameters=b'{"n":1}')
        row = db.row("task_run", run_id)
        assert row["state_type"] == type_
        assert row["run_count"] == (type_ is S.RUNNING)
        assert (row["start_time"] is not None) == (type_ is S.RUNNING or type_ in FINAL)
        assert (row["end_time"] is not None) == (type_ in FINAL)
        assert db.refilled() == ([run_id] if type_ is S.SCHEDULED else [])

    @pytest.mark.parametrize(("flow", "deferred"), list(product([False, True], repeat=2)))
    def test_what_is_dispatched_is_known_before_it_is_written(
        self, db: Database, flow: bool, deferred: bool
    ) -> None:
        """The same as the rules have it: a run of its own, or one that is deferred."""
        run = make_run(surface=asked(S.SCHEDULED, db.flow_run() if flow else None, deferred=deferred))
        db.create(run)
        assert db.refilled() == ([run.id] if run.dispatched else [])
        assert run.dispatched == (deferred or not flow)
        outcomes = db.do(LeaseRuns(db.session(), (run.id,)))
        assert isinstance(outcomes[0], LeasedRun) if run.dispatched else outcomes == (Refusal.TAKEN,)

    def test_a_due_run_is_leased_as_it_is_created(self, db: Database) -> None:
        holder = db.session()
        run = make_run(surface=asked(S.SCHEDULED), holder=holder)
        assert db.create(run) == (Created(run.id, Creation.LEASED),)
        assert db.names(run.id) == ["Scheduled", "Pending"]
        assert db.finish(holder, run.id).verdict is Verdict.RECORDED

    @pytest.mark.parametrize("type_", S)
    def test_a_new_run_is_shown_as_it_is_read(self, db: Database, type_: StateType) -> None:
        flow_run = db.flow_run(labels={"team": "a"})
        details = StateDetails(deferred=True, task_parameters_id="p", others={"x": 1})
        proposed = Proposed(type_, "Name", "message", b'{"r": 1}', details)
        surface = Surface(proposed, flow_run, "v", "key", START, {"own": 1}, {"a": [{"input_type": "constant"}]})
        runs = [
            make_run(surface=surface, tags=("t",), headers={"h": "1"}, retries=2, retry_delay=(1.0, 2.0)),
            make_run(surface=asked(type_), dynamic_key="7", expires=START + SECOND, timeout=3.0, priority=4),
        ]
        for run in runs:
            (created,) = db.do(CreateRuns((run,), shows=True))
            assert created.shown == db.do(Shown(run.id))

    @pytest.mark.parametrize("surface", [None, asked(S.SCHEDULED, deferred=True)])
    def test_who_reads_runs_as_they_are_shown_is_shown_a_new_one_as_it_was(
        self, db: Database, surface: Surface | None
    ) -> None:
        holder = replace(db.session(), dialect=PREFECT)
        run = make_run(surface=surface, holder=holder)
        (created,) = db.do(CreateRuns((run,)))
        first, lease = db.history(run.id)
        assert (created.how, lease.name) == (Creation.LEASED, "Pending")
        assert created.shown is not None
        assert created.shown.state == first
        leased = db.do(Shown(run.id))
        assert leased is not None
        assert created.shown == msgspec.structs.replace(leased, state=first, attempt=0, updated=leased.created)
        assert leased.updated == lease.timestamp

    def test_a_name_is_unique_without_a_flow_run(self, db: Database) -> None:
        run = make_run(dynamic_key="7", surface=asked(S.SCHEDULED))
        again = make_run(dynamic_key="7", surface=asked(S.SCHEDULED), holder=db.session())
        other = make_run("other", dynamic_key="7", surface=asked(S.SCHEDULED))
        assert [outcome.id for outcome in db.create(run, again, other)] == [run.id, run.id, other.id]
        assert db.names(run.id) == ["Scheduled"]
        assert db.query("SELECT count(*) FROM task_run") == [(2,)]

    def test_a_name_is_unique_in_a_flow_run(self, db: Database) -> None:
        flow_run, other = db.flow_run(), db.flow_run()
        run = make_run(dynamic_key="7", surface=asked(S.PENDING, flow_run))
        again = make_run(dynamic_key="7", surface=asked(S.RUNNING, flow_run))
        elsewhere = make_run(dynamic_key="7", surface=asked(S.PENDING, other))
        alone = make_run(dynamic_key="7", surface=asked(S.PENDING))
        created = [outcome.id for outcome in db.create(run, again, elsewhere, alone)]
        assert created == [run.id, run.id, elsewhere.id, alone.id]
        assert db.names(run.id) == ["Pending"]

    def test_the_same_id_with_another_name_is_a_conflict(self, db: Database) -> None:
        run = make_run(dynamic_key="7", surface=asked(S.PENDING))
        db.create(run)
        with db.unchanged():
            assert db.create(replace(run, dynamic_key="8")) == (Created(run.id, Creation.ID_CONFLICT),)

    def test_a_flow_run_that_is_not_there_has_no_task_runs(self, db: Database) -> None:
        run = make_run(surface=asked(S.PENDING, new_id()))
        with db.unchanged():
            assert db.create(run) == (Created(run.id, Creation.PARENT_MISSING),)

    def test_of_a_batch_each_has_its_own_outcome(self, db: Database) -> None:
        runs = [make_run(surface=asked(type_)) for type_ in S]
        runs.insert(3, make_run(surface=asked(S.PENDING, new_id())))
        outcomes = db.do(CreateRuns(tuple(runs)))
        expected = [Creation.CREATED] * len(runs)
        expected[3] = Creation.PARENT_MISSING
        assert [outcome.how for outcome in outcomes] == expected

    # --- Creating flow runs ---------------------------------------------------------------------------------

    def test_a_flow_run_is_there_with_all_that_was_said_of_it(self, db: Database) -> None:
        run_id = db.flow_run(
            name="n", parameters=b'{"p": 1}', context=b'{"c": 1}', job_variables=b'{"j": 1}', retries=2,
            retry_delay=(1.0, 2.0), retry_jitter=0.5, tags=("a",), idempotency_key="once",
            parent_task_run_id="t", flow_version="v", infrastructure_pid="1",
            initial=Proposed(S.SCHEDULED, details=StateDetails(scheduled_time=START + 7)),
        )  # fmt: skip
        row = db.row("flow_run", run_id)
        assert (row["name"], row["due"], row["expected_start_time"], row["retries"]) == (
            "n",
            START + 7,
            START + 7,
            2,
        )
        assert (row["tags"], row["idempotency_key"], row["flow_version"]) == ('["a"]', "once", "v")
        assert (row["parent_task_run_id"], row["infrastructure_pid"]) == ("t", "1")
        (payload,) = db.query(
            f"SELECT parameters, context, job_variables FROM flow_run_payload WHERE flow_run_id = '{run_id}'"
        )
        assert tuple(payload) == (b'{"p": 1}', b'{"c": 1}', b'{"j": 1}')
        (state,) = db.history(run_id, FLOW_RUN)
        assert (state.type, state.due, state.details.flow_run_id) == (S.SCHEDULED, START + 7, run_id)

    def test_an_idempotency_key_is_one_per_flow(self, db: Database) -> None:
        first = db.new_flow_run(idempotency_key="once")
        assert db.do(CreateFlowRun(first)).how is Creation.CREATED
        again = db.new_flow_run(idempotency_key="once")
        assert db.do(CreateFlowRun(again)) == Created(first.id, Creation.EXISTED)
        elsewhere = db.new_flow_run(idempotency_key="once", flow_id=db.flow("other"))
        assert db.do(CreateFlowRun(elsewhere)).how is Creation.CREATED

    def test_a_flow_run_of_an_id_that_is_taken_is_a_conflict(self, db: Database) -> None:
        run = db.new_flow_run(idempotency_key="a")
        db.do(CreateFlowRun(run))
        other = replace(run, idempotency_key="b")
        assert db.do(CreateFlowRun(other)) == Created(run.id, Creation.ID_CONFLICT)

    @pytest.mark.parametrize(
        ("field", "says"),
        [
            ("flow_id", "There is no flow 'x'."),
            ("deployment_id", "There is no deployment 'x'."),
            ("work_pool_name", 'Work pool "x" not found.'),
        ],
    )
    def test_a_flow_run_refers_to_what_is_there(self, db: Database, field: str, says: str) -> None:
        run = db.new_flow_run(**{field: "x"})
        assert db.do(CreateFlowRun(run)) == Created(run.id, Creation.PARENT_MISSING, missing=says)
        assert db.query("SELECT id FROM flow_run") == []

    # --- States that are asked for --------------------------------------------------------------------------

    def test_a_run_that_is_not_there_has_no_state(self, db: Database) -> None:
        for kind in (TASK_RUN, FLOW_RUN):
            assert db.do(SetState(kind, new_id(), COMPLETED)) is None

    def test_an_accepted_state_is_written_with_the_books(self, db: Database) -> None:
        run_id = task_run(db)
        db.clock.advance(1)
        outcome = db.set_state(run_id, S.RUNNING, name="Go", message="m", data=b"[1]")
        assert (outcome.status, outcome.wrote, outcome.reason) == (Status.ACCEPT, True, None)
        db.clock.advance(2)
        db.set_state(run_id, S.COMPLETED)
        row = db.row("task_run", run_id)
        assert (row["run_count"], row["start_time"], row["end_time"]) == (1, START + SECOND, START + 3 * SECOND)
        assert row["total_run_time"] == 2 * SECOND
        pending, running, completed = db.history(run_id)
        assert running == outcome.state
        assert (running.name, running.message, running.data) == ("Go", "m", b"[1]")
        assert pending.timestamp < running.timestamp < completed.timestamp

    @pytest.mark.parametrize(("current", "proposed", "force"), list(product(S, S, [False, True])))
    def test_a_refusal_changes_nothing_and_the_rest_is_one_row_more(
        self, db: Database, current: StateType, proposed: StateType, force: bool
    ) -> None:
        run_id = task_run(db, current)
        before, history = db.snapshot(), len(db.history(run_id))
        outcome = db.set_state(run_id, proposed, force=force)
        if outcome.wrote:
            assert outcome.status in (Status.ACCEPT, Status.REJECT)
            assert len(db.history(run_id)) == history + 1
        else:
            assert outcome.status is not Status.ACCEPT
            assert db.snapshot() == before
        assert db.history(run_id)[-1] == outcome.state
        if proposed is S.CANCELLING and current in (S.SCHEDULED, S.PENDING, S.PAUSED):
            assert (outcome.status, outcome.state.type) == (Status.REJECT, S.CANCELLED)
        elif force:
            assert (outcome.status, outcome.state.type) == (Status.ACCEPT, proposed)

    def test_states_of_one_moment_keep_their_order(self, db: Database) -> None:
        run_id = task_run(db)
        states = [S.RUNNING, S.FAILED, S.PENDING, S.RUNNING, S.COMPLETED]
        operations = [SetState(TASK_RUN, run_id, Proposed(type_), force=True) for type_ in states]
        assert [outcome.state.type for outcome in db.execute(*operations)] == states
        assert [state.type for state in db.history(run_id)] == [S.PENDING, *states]

    def test_a_failure_with_retries_left_waits_with_its_client(self, db: Database) -> None:
        run_id = task_run(db, retries=1, retry_delay=(5.0,))
        db.set_state(run_id, S.RUNNING)
        outcome = db.set_state(run_id, S.FAILED, message="oh")
        assert (outcome.status, outcome.reason) == (Status.REJECT, "Retrying")
        assert (outcome.state.name, outcome.state.message) == ("AwaitingRetry", "oh")
        assert outcome.state.due == START + 5 * SECOND
        db.clock.advance(10)
        assert db.refilled() == []
        assert db.do(LeaseRuns(db.session(), (run_id,))) == (Refusal.TAKEN,)
        assert db.set_state(run_id, S.RUNNING).state.name == "Retrying"
        assert db.set_state(run_id, S.FAILED).status is Status.ACCEPT

    def test_who_comes_too_early_waits(self, db: Database) -> None:
        run_id = task_run(db, S.SCHEDULED, details={"scheduled_time": START + 9 * SECOND}, due=START + 9 * SECOND)
        with db.unchanged():
            outcome = db.set_state(run_id, S.RUNNING)
        assert (outcome.status, outcome.delay_seconds) == (Status.WAIT, 9)

    def test_a_result_that_is_stored_protects_the_end(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder)
        db.finish(holder, run_id, result=b"1")
        with db.unchanged():
            assert db.set_state(run_id, S.SCHEDULED).status is Status.REJECT
        db.set_state(run_id, S.SCHEDULED, force=True)
        assert db.run(run_id).result is None

    def test_the_same_transition_of_a_flow_run_twice_is_one(self, db: Database) -> None:
        run_id = db.flow_run()
        details = StateDetails(transition_id="once")
        assert db.set_state(run_id, S.RUNNING, kind=FLOW_RUN, details=details).wrote
        again = db.set_state(run_id, S.RUNNING, kind=FLOW_RUN, details=details)
        assert (again.status, again.wrote) == (Status.REJECT, False)
        assert [state.type for state in db.history(run_id, FLOW_RUN)] == [S.PENDING, S.RUNNING]

    def test_a_flow_run_that_fails_says_how_it_is_retried(self, db: Database) -> None:
        run_id = db.flow_run(retries=1)
        db.set_state(run_id, S.RUNNING, kind=FLOW_RUN)
        assert db.set_state(run_id, S.FAILED, kind=FLOW_RUN).state.name == "AwaitingRetry"
        assert db.row("flow_run", run_id)["retry_type"] == "in_process"
        db.clock.advance(1)
        db.set_state(run_id, S.RUNNING, kind=FLOW_RUN)
        assert db.set_state(run_id, S.FAILED, kind=FLOW_RUN).state.type is S.FAILED
        assert db.row("flow_run", run_id)["retry_type"] is None

    @pytest.mark.parametrize("state", [None, S.PENDING, S.RUNNING, S.COMPLETED, S.PAUSED])
    def test_task_runs_start_only_in_a_running_flow_run(self, db: Database, state: StateType | None) -> None:
        flow_run = db.flow_run()
        if state is not None:
            details = StateDetails(pause_timeout=START + 5, pause_reschedule=True)
            db.set_state(flow_run, state, kind=FLOW_RUN, force=True, details=details)
        outcome = db.set_state(task_run(db, flow_run_id=flow_run), S.RUNNING)
        if state is S.PAUSED:
            assert (outcome.state.type, outcome.state.name) == (S.PAUSED, "NotReady")
            assert outcome.state.details.pause_timeout == START + 5
        else:
            assert outcome.status is (Status.ACCEPT if state is S.RUNNING else Status.ABORT)

    def test_a_run_that_is_marked_late_stays_where_it_waits(self, db: Database) -> None:
        queued = db.queued()
        withheld = task_run(db, S.SCHEDULED, flow_run_id=db.flow_run())
        late = Proposed(S.SCHEDULED, "Late", details=StateDetails(scheduled_time=START))
        for run_id in (queued, withheld):
            outcome = db.do(SetState(TASK_RUN, run_id, late, policy=MARK_LATE))
            assert outcome is not None
            assert outcome.state.name == "Late"
        assert db.refilled() == [queued]

    # --- What it means for the rest -------------------------------------------------------------------------

    def test_a_queued_run_that_is_cancelled_is_in_no_window(self, db: Database) -> None:
        run_id = db.queued()
        change = db.set_state(run_id, S.CANCELLED, message="no").change
        final = FinalRun(run_id, "k", S.CANCELLED, "Cancelled", "no")
        assert change == Change(run_id, "k", unqueued=True, final=final)
        assert db.refilled() == []
        assert db.do(LeaseRuns(db.session(), (run_id,))) == (Refusal.TAKEN,)

    def test_a_run_that_is_put_off_is_not_leased_before(self, db: Database) -> None:
        run_id = db.queued()
        later = StateDetails(scheduled_time=START + SECOND)
        change = db.set_state(run_id, S.SCHEDULED, details=later).change
        queued = QueuedRecord(run_id, "k", 0, SCHEDULED_LANE, START + SECOND)
        assert change == Change(run_id, "k", unqueued=True, queued=queued)
        assert db.do(LeaseRuns(db.session(), (run_id,))) == (Refusal.TAKEN,)
        db.clock.advance(1)
        assert isinstance(db.do(LeaseRuns(db.session(), (run_id,)))[0], LeasedRun)

    @pytest.mark.parametrize("type_", sorted(FINAL))
    def test_an_end_ends_the_lease(self, db: Database, type_: StateType) -> None:
        holder = db.session()
        run_id = db.running(holder)
        change = db.set_state(run_id, type_, force=True).change
        assert change is not None
        assert (change.ended, change.queued) == (Lease(holder.session_id, 1), None)
        assert change.final is not None
        assert change.final.type is type_
        with db.unchanged():
            assert db.finish(holder, run_id) == Reported(Verdict.LEASE_LOST)

    def test_a_leased_run_that_is_scheduled_goes_first(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder)
        change = db.set_state(run_id, S.SCHEDULED, force=True).change
        assert change is not None
        assert change.ended == Lease(holder.session_id, 1)
        assert change.queued is not None
        assert change.queued.lane == RETRY_LANE
        assert db.refilled() == [run_id]

    def test_a_failure_of_a_leased_run_is_retried_by_the_broker(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder, retries=1)
        change = db.set_state(run_id, S.FAILED).change
        assert change is not None
        assert (change.ended, change.final) == (Lease(holder.session_id, 1), None)
        assert db.refilled() == [run_id]
        assert db.row("task_run", run_id)["failures"] == 1

    @pytest.mark.parametrize("type_", [S.PENDING, S.RUNNING])
    def test_a_lease_outlives_its_beginning(self, db: Database, type_: StateType) -> None:
        holder = db.session()
        run_id = db.leased(holder)
        outcome = db.set_state(run_id, type_, force=True)
        assert outcome.change == Change(run_id, "k", kept=Lease(holder.session_id, 1))
        assert db.finish(holder, run_id).verdict is Verdict.RECORDED

    def test_a_holder_is_asked_to_stop_and_the_truth_wins(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder)
        change = db.set_state(run_id, S.CANCELLING).change
        lease = Lease(holder.session_id, 1)
        assert change == Change(run_id, "k", to_stop=lease, kept=lease)
        assert db.finish(holder, run_id).verdict is Verdict.RECORDED
        assert db.names(run_id)[-1] == "Completed"

    # --- Cached results -------------------------------------------------------------------------------------

    def test_what_has_been_computed_is_not_computed_again(self, db: Database) -> None:
        first = task_run(db)
        db.set_state(first, S.RUNNING)
        key = StateDetails(cache_key="key", cache_expiration=START + 5 * SECOND)
        db.set_state(first, S.COMPLETED, details=key, data=b'"result"', message="done")
        outcome = db.set_state(task_run(db), S.RUNNING, details=key)
        assert (outcome.status, outcome.state.type, outcome.state.name) == (Status.REJECT, S.COMPLETED, "Cached")
        assert (outcome.state.data, outcome.state.message) == (b'"result"', "done")
        for other in (StateDetails(cache_key="other"), msgspec.structs.replace(key, refresh_cache=True)):
            assert db.set_state(task_run(db), S.RUNNING, details=other).status is Status.ACCEPT
        db.clock.advance(5)
        assert db.set_state(task_run(db), S.RUNNING, details=key).status is Status.ACCEPT

    def test_the_newest_result_counts_and_goes_with_its_run(self, db: Database) -> None:
        key = StateDetails(cache_key="key")
        runs = [task_run(db) for _ in range(2)]
        for run_id, data in zip(runs, [b"1", b"2"], strict=True):
            db.set_state(run_id, S.COMPLETED, details=key, data=data)
        assert db.set_state(task_run(db), S.RUNNING, details=key).state.data == b"2"
        db.do(DeleteRun(TASK_RUN, runs[1]))
        assert db.set_state(task_run(db), S.RUNNING, details=key).state.data == b"1"

    # --- Concurrency slots ----------------------------------------------------------------------------------

    def test_no_more_runs_of_a_tag_than_it_has_slots(self, db: Database) -> None:
        db.limit("a", 1)
        db.limit("b", 2)
        flow_run = db.running_flow_run()
        one, two, other = (
            task_run(db, flow_run_id=flow_run, tags=tags) for tags in (("a", "b", "c"), ("a", "b"), ("b",))
        )
        assert db.set_state(one, S.RUNNING).wrote
        with db.unchanged():
            outcome = db.set_state(two, S.RUNNING)
        assert (outcome.status, outcome.delay_seconds) == (Status.WAIT, 10)
        assert db.slots() == {("a", one), ("b", one)}
        assert db.set_state(other, S.RUNNING).wrote
        assert db.set_state(one, S.COMPLETED).wrote
        assert db.slots() == {("b", other)}
        assert db.set_state(two, S.RUNNING).wrote
        assert db.slots() == {("a", two), ("b", two), ("b", other)}

    def test_a_run_that_runs_again_keeps_its_slot(self, db: Database) -> None:
        db.limit("a", 1)
        run_id = task_run(db, flow_run_id=db.running_flow_run(), tags=("a",))
        db.set_state(run_id, S.RUNNING)
        assert db.set_state(run_id, S.RUNNING).wrote
        assert db.set_state(run_id, S.CANCELLING).wrote
        assert db.slots() == {("a", run_id)}

    def test_a_limit_of_nothing_lets_nothing_run(self, db: Database) -> None:
        db.limit("a", 0)
        run_id = task_run(db, flow_run_id=db.running_flow_run(), tags=("a",))
        with db.unchanged():
            assert db.set_state(run_id, S.RUNNING).status is Status.ABORT

    @pytest.mark.parametrize("way", ["finished", "released", "lost", "deleted", "its flow run deleted", "forced"])
    def test_a_slot_is_free_whichever_way_a_run_ends(self, db: Database, way: str) -> None:
        db.limit("a", 1)
        flow_run, holder = db.running_flow_run(), db.session()
        run_id = task_run(db, S.SCHEDULED, flow_run_id=flow_run, details={"deferred": True}, tags=("a",))
        db.lease(holder, run_id)
        db.set_state(run_id, S.RUNNING)
        assert db.slots() == {("a", run_id)}
        if way == "finished":
            db.finish(holder, run_id)
        elif way in ("released", "lost"):
            db.do(ReleaseRuns(holder.session_id, (Release(run_id, 1, ""),), lost=way == "lost"))
        elif way == "deleted":
            db.do(DeleteRun(TASK_RUN, run_id))
        elif way == "its flow run deleted":
            db.do(DeleteRun(FLOW_RUN, flow_run))
        else:
            db.set_state(run_id, S.PAUSED, force=True)
        assert db.slots() == set()

    def test_a_limit_is_set_anew_reset_and_deleted(self, db: Database) -> None:
        first, again, other = new_id(), new_id(), new_id()
        assert db.do(SetLimit(first, "a", 2)) == (first, True)
        assert db.do(SetLimit(again, "a", 3)) == (first, False)
        assert db.do(SetLimit(other, "b", 1)) == (other, True)
        flow_run = db.running_flow_run()
        one, two = (task_run(db, flow_run_id=flow_run, tags=("a", "b")) for _ in range(2))
        db.set_state(one, S.RUNNING)
        db.set_state(two, S.RUNNING, force=True)
        assert db.slots() == {("a", one), ("b", one)}
        assert db.do(ResetLimit("a", (two, new_id())))
        assert db.slots() == {("a", two), ("b", one)}
        assert db.do(DeleteLimit("a"))
        assert db.slots() == {("b", one)}
        assert not db.do(ResetLimit("a"))
        assert not db.do(DeleteLimit("a"))

    # --- Changing and deleting ------------------------------------------------------------------------------

    def test_a_run_has_the_name_it_was_given(self, db: Database) -> None:
        runs = {TASK_RUN: task_run(db), FLOW_RUN: db.flow_run()}
        for kind, run_id in runs.items():
            assert db.do(ChangeRun(kind, run_id, {"name": "other"}))
            assert db.row(kind.name, run_id)["name"] == "other"
            assert not db.do(ChangeRun(kind, new_id(), {"name": "other"}))

    def test_what_is_given_of_a_flow_run_is_changed_and_nothing_else(self, db: Database) -> None:
        changes = {"tags": ("a",), "retry_delay": (1.0, 2.0), "infrastructure_pid": "p", "parameters": b'{"x":1}'}
        run_id, other = db.flow_run(), db.flow_run()
        before, kept = db.row("flow_run", run_id), db.row("flow_run", other)
        assert db.do(ChangeRun(FLOW_RUN, run_id, changes))
        after = {"tags": '["a"]', "retry_delay": "[1.0,2.0]", "infrastructure_pid": "p", "updated": db.clock.now()}
        assert db.row("flow_run", run_id) == {**before, **after}
        assert db.row("flow_run", other) == kept
        payloads = dict(db.query("SELECT flow_run_id, parameters FROM flow_run_payload"))
        assert (payloads[run_id], payloads[other]) == (b'{"x":1}', b"{}")

    @pytest.mark.parametrize("type_", S)
    def test_nothing_is_left_of_a_run_that_was_deleted(self, db: Database, type_: StateType) -> None:
        kept = db.queued("other")
        before = db.snapshot()
        run_id = task_run(db, type_, details={"cache_key": "k"})
        changes = db.do(DeleteRun(TASK_RUN, run_id))
        assert db.snapshot() == before
        assert changes is not None
        (change,) = changes
        assert change.unqueued == (type_ is S.SCHEDULED)
        assert (change.final is None) == (type_ in FINAL)
        assert db.do(DeleteRun(TASK_RUN, run_id)) is None
        assert db.do(LeaseRuns(db.session(), (run_id, kept)))[0] is Refusal.TAKEN

    def test_a_run_deleted_in_the_group_it_was_created_in(self, db: Database) -> None:
        run: NewRunRecord = make_run(surface=asked(S.SCHEDULED))
        before = db.snapshot()
        created, changes = db.execute(CreateRuns((run,)), DeleteRun(TASK_RUN, run.id))
        assert created == (Created(run.id, Creation.CREATED),)
        assert len(changes) == 1
        assert db.snapshot() == before

    def test_a_report_of_a_run_that_was_deleted_is_answered(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder)
        (change,) = db.do(DeleteRun(TASK_RUN, run_id)) or ()
        assert change.ended == Lease(holder.session_id, 1)
        assert db.finish(holder, run_id) == Reported(Verdict.GONE)

    def test_a_flow_run_takes_its_task_runs_along(self, db: Database) -> None:
        before = db.snapshot()
        flow_run, holder = db.flow_run(), db.session()
        waiting = task_run(db, S.SCHEDULED, flow_run_id=flow_run, details={"deferred": True})
        ended = task_run(db, S.COMPLETED, flow_run_id=flow_run)
        held = task_run(db, S.SCHEDULED, flow_run_id=flow_run, details={"deferred": True})
        db.lease(holder, held)
        changes = {change.run_id: change for change in db.do(DeleteRun(FLOW_RUN, flow_run)) or ()}
        assert set(changes) == {flow_run, waiting, ended, held}
        assert changes[waiting].unqueued
        assert changes[held].ended == Lease(holder.session_id, 1)
        assert changes[ended].final is None
        assert db.snapshot() == before
        assert db.query("SELECT id FROM flow_run_state") == []
        assert db.do(DeleteRun(FLOW_RUN, flow_run)) is None
