"""What every database must do. A subclass for each brings the fixture `db`."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlane.protocol.states import StateName, StateType
from runlane_broker.core.submit import payload_hash
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.storage.operations.batches import MAX_BATCH
from runlane_broker.storage.operations.creating import CreateRuns
from runlane_broker.storage.operations.leasing import (
    EXPIRED_MESSAGE,
    MAX_LEASE_BYTES,
    FinishRun,
    LeaseRuns,
    Release,
    ReleaseRuns,
    StartRun,
)
from runlane_broker.storage.operations.reporting import RecordReports, ReportedState
from runlane_broker.storage.operations.sessions import (
    BeatBroker,
    EndSession,
    OpenSession,
    ResumeSession,
    StartBroker,
    hash_token,
)
from runlane_broker.storage.records import (
    PREFECT,
    RETRY_LANE,
    SCHEDULED_LANE,
    Created,
    Creation,
    FinalRun,
    Freed,
    HeldRecord,
    Holder,
    LeasedRun,
    QueuedRecord,
    Refill,
    Refusal,
    Reported,
    Resumption,
    SessionRecord,
    Surface,
    Verdict,
)

from ..support import SECOND, START, Broken, make_run, new_id
from .database import COMPLETED, FAILED, Database

S = StateType

#: Not what a JSON encoder would write: bytes must come out as they went in.
AWKWARD = b'{ "b" : 12345678901234567890123 , "a":1.0e2,"\\u00e4":"\xc3\xa4\\n", "a": null}'

#: The same examples every time, all in one database, each with a key of its own.
PROPERTY = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


#: What two runs that fare alike do not share.
OWN = {"id", "run_id", "name", "dynamic_key", "payload_hash", "state_id"} | {
    "created", "updated", "state_timestamp", "timestamp", "end_time",
}  # fmt: skip


def _unnamed(record: Any) -> Any:
    """Return a record without what is its own, and without what is in it."""
    if isinstance(record, Refusal):
        return record
    names = [field for field in type(record).__match_args__ if field not in OWN]
    return {name: getattr(record, name) for name in names if name not in ("shown", "state")}


def _unnamed_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in OWN}


class StoreConformance:
    """Operations go in, records come out; nothing here knows which database it is."""

    @pytest.fixture
    def db(self) -> Iterator[Database]:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _audited(self, db: Database) -> Iterator[None]:
        yield
        db.audit()

    # --- CreateRuns -----------------------------------------------------------------------------------------

    def test_a_created_run_is_there_with_all_that_was_said_of_it(self, db: Database) -> None:
        run = make_run(
            "mail.send",
            name="Greeting",
            dynamic_key="7",
            parameters=AWKWARD,
            priority=9,
            due=START + 5,
            expires=START + 9 * SECOND,
            retries=3,
            retry_delay=(1.5, 60.0),
            retry_jitter=0.25,
            timeout=2.5,
            tags=("a", "ü"),
            headers={"traceparent": "00-ab", "": "x"},
            idempotency_key="once",
        )
        assert db.create(run) == (Created(run.id, Creation.CREATED),)
        record = db.run(run.id)
        for name in (
            "id", "task_key", "name", "dynamic_key", "parameters", "priority", "due", "expires", "retries",
            "retry_delay", "retry_jitter", "timeout", "tags", "headers", "idempotency_key",
        ):  # fmt: skip
            assert getattr(record, name) == getattr(run, name), name
        assert (record.attempt, record.failures, record.losses, record.run_count) == (0, 0, 0, 0)
        assert (record.created, record.expected_start_time) == (START, START + 5)
        assert (record.start_time, record.end_time, record.result, record.error) == (None, None, None, None)
        assert (record.state.type, record.state.name, record.state.message) == (
            S.SCHEDULED,
            "Scheduled",
            None,
        )
        assert (record.state.due, record.state.attempt) == (START + 5, 0)
        assert db.history(run.id) == [record.state]

    def test_a_clients_own_name_for_a_run_is_unique_for_a_task_key(self, db: Database) -> None:
        run = make_run("mail.send", dynamic_key="7")
        db.create(run)
        with db.unchanged():
            again = make_run("mail.send", dynamic_key="7", parameters=b'{"other":1}')
            assert db.create(again) == (Created(run.id, Creation.EXISTED),)
        other = make_run("mail.read", dynamic_key="7")
        assert db.create(other) == (Created(other.id, Creation.CREATED),)

    def test_the_same_run_again_is_the_one_that_is_there(self, db: Database) -> None:
        run = make_run()
        db.create(run)
        with db.unchanged():
            assert db.create(run) == (Created(run.id, Creation.EXISTED),)

    def test_the_same_run_again_is_there_also_when_it_has_ended(self, db: Database) -> None:
        run = make_run()
        db.create(run)
        holder = db.session()
        db.lease(holder, run.id)
        db.finish(holder, run.id)
        with db.unchanged():
            assert db.create(run) == (Created(run.id, Creation.EXISTED),)

    @pytest.mark.parametrize("other", [{"parameters": b"{}"}, {"key": "other"}])
    def test_an_id_that_is_taken_by_another_run_is_a_conflict(self, db: Database, other: dict[str, Any]) -> None:
        run_id = db.queued()
        with db.unchanged():
            assert db.create(make_run(id=run_id, **other)) == (Created(run_id, Creation.ID_CONFLICT),)

    def test_an_idempotency_key_leads_to_the_run_that_has_it(self, db: Database) -> None:
        first = db.queued(idempotency_key="once")
        with db.unchanged():
            again = make_run(idempotency_key="once")
            assert db.create(again) == (Created(first, Creation.EXISTED),)
            other = make_run(idempotency_key="once", parameters=b"{}")
            assert db.create(other) == (Created(first, Creation.IDEMPOTENCY_CONFLICT),)

    def test_an_idempotency_key_is_one_per_task_key(self, db: Database) -> None:
        db.queued("a", idempotency_key="once")
        (created,) = db.create(make_run("b", idempotency_key="once"))
        assert created.how is Creation.CREATED

    def test_an_idempotency_key_holds_when_its_run_has_ended(self, db: Database) -> None:
        holder = db.session()
        first = db.leased(holder, idempotency_key="once")
        db.finish(holder, first)
        assert db.create(make_run(idempotency_key="once")) == (Created(first, Creation.EXISTED),)

    def test_within_one_batch_the_first_of_the_same_wins(self, db: Database) -> None:
        run = make_run()
        keyed = make_run(idempotency_key="once")
        again = make_run(idempotency_key="once")
        other = dataclasses.replace(run, payload_hash=b"another")
        created = db.create(run, run, other, keyed, again)
        assert created == (
            Created(run.id, Creation.CREATED),
            Created(run.id, Creation.EXISTED),
            Created(run.id, Creation.ID_CONFLICT),
            Created(keyed.id, Creation.CREATED),
            Created(keyed.id, Creation.EXISTED),
        )
        assert db.names(run.id) == ["Scheduled"]

    def test_a_batch_of_ten_thousand_is_one_transaction_with_an_outcome_each(self, db: Database) -> None:
        runs = [make_run(idempotency_key=f"i{i}" if i % 10 == 0 else None) for i in range(9_998)]
        db.create(runs[0], runs[10])
        batch = [*runs, make_run(id=runs[5].id, parameters=b"[]"), make_run(idempotency_key="i20")]
        created = db.create(*batch)
        existed = {0, 10, 9_999}
        for i, outcome in enumerate(created):
            expected = Creation.EXISTED if i in existed else Creation.CREATED
            assert outcome.how is (Creation.ID_CONFLICT if i == 9_998 else expected), i
        assert created[9_999].id == runs[20].id
        assert db.refilled(limit=20_000) == [run.id for run in runs]

    def test_a_batch_of_which_one_cannot_be_written_leaves_nothing(self, db: Database) -> None:
        fine, impossible = make_run(), make_run(priority=10)
        (outcome,) = db.execute(CreateRuns((fine, impossible)))
        assert isinstance(outcome, Exception)
        assert db.wait(db.store.run_by_id(fine.id)) is None

    def test_a_hand_off_creates_and_leases_in_one(self, db: Database) -> None:
        holder = db.session()
        run = make_run(parameters=AWKWARD, holder=holder)
        assert db.create(run) == (Created(run.id, Creation.LEASED),)
        record = db.run(run.id)
        assert (record.state.type, record.attempt, record.parameters) == (S.PENDING, 1, AWKWARD)
        assert db.names(run.id) == ["Scheduled", "Pending"]
        db.start(holder, run.id)
        assert db.finish(holder, run.id).verdict is Verdict.RECORDED

    @pytest.mark.parametrize("wrong", [{"epoch": 2}, {"broker_id": "other"}, {"session_id": "other"}])
    def test_a_hand_off_to_a_session_that_has_moved_only_creates(
        self, db: Database, wrong: dict[str, Any]
    ) -> None:
        holder = dataclasses.replace(db.session(), **wrong)
        run = make_run(holder=holder)
        assert db.create(run) == (Created(run.id, Creation.CREATED),)
        assert db.refilled() == [run.id]

    def test_a_hand_off_of_a_run_that_is_there_leases_nothing(self, db: Database) -> None:
        run = make_run(idempotency_key="once")
        db.create(run)
        holder = db.session()
        again = dataclasses.replace(run, holder=holder)
        same_key = make_run(idempotency_key="once", holder=holder)
        with db.unchanged():
            created = db.create(again, same_key)
        assert [c.how for c in created] == [Creation.EXISTED, Creation.EXISTED]

    def test_a_batch_can_be_handed_off_in_part_and_to_several(self, db: Database) -> None:
        one, two = db.session(), db.session()
        moved = dataclasses.replace(two, epoch=5)
        holders = [one, None, two, moved, one]
        runs = [make_run(holder=holder) for holder in holders]
        how = [created.how for created in db.create(*runs)]
        L, C = Creation.LEASED, Creation.CREATED
        assert how == [L, C, L, C, L]
        assert db.refilled() == [runs[1].id, runs[3].id]

    # --- LeaseRuns ------------------------------------------------------------------------------------------

    def test_a_lease_is_the_next_attempt_with_the_payload_as_it_came(self, db: Database) -> None:
        headers = {"traceparent": "00-ab"}
        expires = START + SECOND
        run_id = db.queued(parameters=AWKWARD, timeout=1.5, expires=expires, headers=headers)
        holder = db.session()
        assert db.lease(holder, run_id) == [LeasedRun(run_id, 1, "k", AWKWARD, 1.5, expires, headers)]
        db.do(ReleaseRuns(holder.session_id, (Release(run_id, 1, "not now"),)))
        assert db.lease(holder, run_id) == [LeasedRun(run_id, 2, "k", AWKWARD, 1.5, expires, headers)]
        assert [state.attempt for state in db.history(run_id)] == [0, 1, 1, 2]

    def test_a_run_is_leased_once(self, db: Database) -> None:
        one, two = db.session(), db.session()
        run_id = db.leased(one)
        with db.unchanged():
            assert db.do(LeaseRuns(two, (run_id,))) == (Refusal.TAKEN,)
            assert db.do(LeaseRuns(one, (run_id, run_id))) == (Refusal.TAKEN, Refusal.TAKEN)

    @pytest.mark.parametrize("ended", [COMPLETED, FAILED, Proposed(S.CANCELLED), Proposed(S.CRASHED)])
    def test_what_has_ended_or_is_unknown_is_not_leased(self, db: Database, ended: Proposed) -> None:
        holder = db.session()
        run_id = db.running(holder)
        db.finish(holder, run_id, proposed=ended)
        with db.unchanged():
            assert db.do(LeaseRuns(holder, (run_id, new_id()))) == (Refusal.TAKEN, Refusal.TAKEN)

    @pytest.mark.parametrize("wrong", [{"epoch": 2}, {"broker_id": "other"}, {"session_id": "other"}])
    def test_a_session_that_has_moved_leases_nothing(self, db: Database, wrong: dict[str, Any]) -> None:
        run_ids = (db.queued(), db.queued(expires=START))
        holder = dataclasses.replace(db.session(), **wrong)
        with db.unchanged():
            assert db.do(LeaseRuns(holder, run_ids)) == (Refusal.SESSION_MOVED,) * 2

    @pytest.mark.parametrize(("expires", "expired"), [(START - 1, True), (START, True), (START + 1, False)])
    def test_an_expired_run_ends_instead_of_being_leased(self, db: Database, expires: int, expired: bool) -> None:
        run_id = db.queued(expires=expires)
        (outcome,) = db.do(LeaseRuns(db.session(), (run_id,)))
        if not expired:
            assert isinstance(outcome, LeasedRun)
            return
        final = FinalRun(run_id, "k", S.CANCELLED, StateName.EXPIRED, EXPIRED_MESSAGE)
        assert outcome == final
        assert db.wait(db.store.outcomes([run_id])) == {run_id: final}
        assert db.names(run_id) == ["Scheduled", "Expired"]
        assert db.run(run_id).attempt == 0
        assert db.refilled() == []

    def test_each_of_a_lease_statement_has_its_own_outcome(self, db: Database) -> None:
        holder = db.session()
        taken, fine, expired, also = db.leased(holder), db.queued(), db.queued(expires=START), db.queued()
        outcomes = db.do(LeaseRuns(holder, (taken, fine, expired, also)))
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds == [Refusal, LeasedRun, FinalRun, LeasedRun]

    @pytest.mark.parametrize("dialect", [None, PREFECT])
    def test_runs_are_leased_together_as_they_are_one_by_one(self, db: Database, dialect: str | None) -> None:
        holder = dataclasses.replace(db.session(), dialect=dialect)
        headers = {"traceparent": "00-ab"}
        kinds: list[dict[str, Any]] = [
            {"parameters": AWKWARD, "timeout": 1.5, "headers": headers, "priority": 3},
            {"expires": START + SECOND, "tags": ("a",), "task_key": "other"},
            {"expires": START - 1},
            {"due": START + 1},
            {},
        ]
        single = [db.queued(**kind) for kind in kinds]
        alone = [outcome for run_id in single for outcome in db.do(LeaseRuns(holder, (run_id,)))]
        many = [db.queued(**kind) for kind in kinds]
        together = db.do(LeaseRuns(holder, tuple(many)))
        assert [type(outcome) for outcome in together] == [LeasedRun, LeasedRun, FinalRun, Refusal, LeasedRun]
        assert [_unnamed(one) for one in together] == [_unnamed(one) for one in alone]
        rows = [[_unnamed_row(db.row("task_run", run_id)) for run_id in ids] for ids in (single, many)]
        assert rows[0] == rows[1]
        states = [[[_unnamed(state) for state in db.history(run_id)] for run_id in ids] for ids in (single, many)]
        assert states[0] == states[1]
        for run_id in many:
            assert db.run(run_id).state == db.history(run_id)[-1]

    def test_a_run_that_is_named_twice_is_leased_once(self, db: Database) -> None:
        run_id = db.queued()
        leased, again = db.do(LeaseRuns(db.session(), (run_id, run_id)))
        assert isinstance(leased, LeasedRun)
        assert again is Refusal.TAKEN
        assert db.names(run_id) == ["Scheduled", "Pending"]

    def test_as_many_are_leased_together_as_a_session_takes(self, db: Database) -> None:
        run_ids = [db.queued() for _ in range(2 * MAX_BATCH + 1)]
        assert [run.id for run in db.lease(db.session(), *run_ids)] == run_ids
        assert all(db.names(run_id) == ["Scheduled", "Pending"] for run_id in run_ids)

    @pytest.mark.parametrize("dialect", [None, PREFECT])
    def test_what_is_leased_together_is_bounded_by_its_parameters(self, db: Database, dialect: str | None) -> None:
        large = b'"' + b"x" * (MAX_LEASE_BYTES // 2) + b'"'
        run_ids = [db.queued(parameters=large) for _ in range(4)]
        holder = dataclasses.replace(db.session(), dialect=dialect)
        first = db.do(LeaseRuns(holder, tuple(run_ids)))
        assert [type(outcome) for outcome in first] == [LeasedRun, LeasedRun, Refusal, Refusal]
        assert first[2:] == (Refusal.LATER, Refusal.LATER)
        assert [run.id for run in db.lease(holder, *run_ids[2:])] == run_ids[2:]

    # --- StartRun -------------------------------------------------------------------------------------------

    def test_a_started_run_is_running(self, db: Database) -> None:
        holder = db.session()
        run_id = db.leased(holder)
        db.clock.advance(3)
        db.start(holder, run_id)
        record = db.run(run_id)
        assert (record.state.type, record.state.name, record.run_count) == (S.RUNNING, "Running", 1)
        assert record.start_time == START + 3 * SECOND
        assert db.names(run_id) == ["Scheduled", "Pending", "Running"]

    def test_started_twice_is_started_once(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder)
        with db.unchanged():
            db.start(holder, run_id)

    def test_after_a_failure_it_is_retrying(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder, retries=1)
        db.finish(holder, run_id, proposed=FAILED)
        db.lease(holder, run_id)
        db.start(holder, run_id, attempt=2)
        assert db.run(run_id).state.name == "Retrying"
        assert db.run(run_id).run_count == 2
        assert db.run(run_id).start_time is not None

    def test_after_a_loss_it_is_just_running(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder)
        db.do(EndSession(holder.session_id, 1, "lost", lost=True, max_losses=5))
        second = db.session()
        db.lease(second, run_id)
        db.start(second, run_id, attempt=2)
        assert db.run(run_id).state.name == "Running"

    def test_only_the_holder_starts_a_run(self, db: Database) -> None:
        holder, other = db.session(), db.session()
        run_id = db.leased(holder)
        with db.unchanged():
            for session_id, attempt in ((other.session_id, 1), (holder.session_id, 2), (holder.session_id, 0)):
                assert db.do(StartRun(session_id, run_id, attempt, db.clock.now())) is Verdict.LEASE_LOST
            assert db.do(StartRun(holder.session_id, new_id(), 1, db.clock.now())) is Verdict.LEASE_LOST

    def test_a_run_that_is_being_cancelled_is_not_started_but_cancelled(self, db: Database) -> None:
        holder = db.session()
        run_id = db.cancelling(holder)
        with db.unchanged():
            assert db.do(StartRun(holder.session_id, run_id, 1, db.clock.now())) is Verdict.CANCELLING

    def test_a_late_start_of_a_lease_that_has_reported_its_end_changes_nothing(self, db: Database) -> None:
        """Both were sent in order, but the first could not be written at first."""
        holder = db.session()
        run_id = db.leased(holder)
        db.finish(holder, run_id)
        with db.unchanged():
            assert db.do(StartRun(holder.session_id, run_id, 1, db.clock.now())) is Verdict.RECORDED

    # --- FinishRun ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("started", [True, False])
    @pytest.mark.parametrize(
        "proposed",
        [
            COMPLETED,
            Proposed(S.COMPLETED, "Cached", "from yesterday"),
            Proposed(S.FAILED, StateName.TIMED_OUT, "2 s"),
            Proposed(S.CANCELLED),
            Proposed(S.CRASHED, message="out of memory"),
        ],
    )
    def test_a_reported_end_is_written_with_what_came_with_it(
        self, db: Database, proposed: Proposed, started: bool
    ) -> None:
        holder = db.session()
        run_id = db.running(holder) if started else db.leased(holder)
        db.clock.advance(2)
        reported = db.finish(holder, run_id, proposed=proposed, result=AWKWARD, error=b'"e"')
        final = FinalRun(run_id, "k", proposed.type, proposed.label, proposed.message, AWKWARD, b'"e"')
        assert reported == Reported(Verdict.RECORDED, final=final)
        assert db.wait(db.store.outcomes([run_id])) == {run_id: final}
        record = db.run(run_id)
        assert (record.result, record.error, record.parameters) == (AWKWARD, b'"e"', b'{"x":1}')
        assert record.end_time == record.state.timestamp
        assert (record.total_run_time > 1.9 * SECOND) is started
        assert db.names(run_id)[-1] == proposed.label

    def test_a_null_result_is_not_the_absence_of_one(self, db: Database) -> None:
        holder = db.session()
        null, absent = db.running(holder), db.running(holder)
        db.finish(holder, null, result=b"null")
        db.finish(holder, absent)
        assert db.run(null).result == b"null"
        assert db.run(absent).result is None

    def test_a_failure_with_retries_left_waits_for_its_turn(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder, retries=1, retry_delay=(30.0,), priority=4)
        reported = db.finish(holder, run_id, proposed=Proposed(S.FAILED, message="boom"), error=b'"boom"')
        due = START + 30 * SECOND
        queued = QueuedRecord(run_id, "k", 4, RETRY_LANE, due)
        assert reported == Reported(Verdict.RECORDED, queued=queued)
        record = db.run(run_id)
        assert (record.state.type, record.state.name) == (S.SCHEDULED, "AwaitingRetry")
        assert (record.state.message, record.state.due, record.due) == ("boom", due, due)
        assert (record.failures, record.losses, record.error, record.end_time) == (1, 0, b'"boom"', None)
        assert db.refill() == Refill((), due)
        db.clock.advance(30)
        assert db.refill() == Refill((queued,), None)
        assert db.wait(db.store.outcomes([run_id])) == {run_id: None}

    def test_the_last_retry_that_fails_is_the_end(self, db: Database) -> None:
        holder = db.session()
        run_id = db.queued(retries=2, retry_delay=(0.0,))
        for attempt, name in ((1, "AwaitingRetry"), (2, "AwaitingRetry"), (3, "Failed")):
            db.lease(holder, run_id)
            db.start(holder, run_id, attempt)
            db.finish(holder, run_id, attempt, FAILED)
            assert db.run(run_id).state.name == name
        assert db.run(run_id).failures == 3

    def test_each_retry_has_the_delay_of_its_turn_the_last_one_for_ever(self, db: Database) -> None:
        holder = db.session()
        run_id = db.queued(retries=4, retry_delay=(1.0, 10.0, 0.5))
        for attempt, seconds in enumerate((1.0, 10.0, 0.5, 0.5), 1):
            db.lease(holder, run_id)
            reported = db.finish(holder, run_id, attempt, FAILED)
            assert reported.queued is not None
            assert reported.queued.due == db.clock.now() + seconds * SECOND
            db.clock.advance(seconds)

    def test_jitter_stretches_a_delay_and_differs_from_run_to_run(self, db: Database) -> None:
        holder = db.session()
        delays = set[float]()
        for _ in range(20):
            run_id = db.running(holder, retries=1, retry_delay=(10.0,), retry_jitter=0.5)
            queued = db.finish(holder, run_id, proposed=FAILED).queued
            assert queued is not None
            delays.add((queued.due - START) / SECOND)
        assert all(10.0 <= delay <= 15.0 for delay in delays)
        assert len(delays) > 10

    @pytest.mark.parametrize(("retry_after", "seconds"), [(0.0, 0), (7.25, 7.25)])
    def test_the_worker_may_say_when_to_retry(self, db: Database, retry_after: float, seconds: float) -> None:
        holder = db.session()
        run_id = db.running(holder, retries=1, retry_delay=(60.0,), retry_jitter=1.0)
        queued = db.finish(holder, run_id, proposed=FAILED, retry_after=retry_after).queued
        assert queued is not None
        assert queued.due == START + seconds * SECOND

    def test_the_worker_may_say_that_a_retry_is_pointless(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder, retries=5)
        reported = db.finish(holder, run_id, proposed=FAILED, retriable=False, retry_after=1.0)
        assert reported.final is not None
        assert db.run(run_id).state.type is S.FAILED

    def test_what_an_attempt_left_behind_is_not_shown_as_the_outcome_of_the_next(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder, retries=1)
        db.finish(holder, run_id, proposed=FAILED, error=b'"boom"')
        db.lease(holder, run_id)
        final = db.finish(holder, run_id, attempt=2).final
        assert final is not None
        assert (final.result, final.error) == (None, None)
        assert db.wait(db.store.outcomes([run_id])) == {run_id: final}

    @pytest.mark.parametrize("proposed", [COMPLETED, FAILED, Proposed(S.CANCELLED)])
    @pytest.mark.parametrize("retries", [0, 1])
    def test_the_same_report_again_has_the_same_verdict_and_no_second_state(
        self, db: Database, proposed: Proposed, retries: int
    ) -> None:
        holder = db.session()
        run_id = db.running(holder, retries=retries)
        report = FinishRun(holder.session_id, run_id, 1, db.clock.now(), proposed, b"1", retry_after=5.0)
        assert db.do(report).verdict is Verdict.RECORDED
        with db.unchanged():
            db.clock.advance(1)
            assert db.do(report) == Reported(Verdict.RECORDED)
            assert db.do(report) == Reported(Verdict.RECORDED)

    def test_the_same_report_again_is_recorded_also_while_another_attempt_runs(self, db: Database) -> None:
        holder, other = db.session(), db.session()
        run_id = db.running(holder, retries=1)
        report = FinishRun(holder.session_id, run_id, 1, db.clock.now(), FAILED)
        db.do(report)
        db.lease(other, run_id)
        with db.unchanged():
            assert db.do(report) == Reported(Verdict.RECORDED)

    def test_two_reports_of_one_lease_in_one_group_are_one(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder)
        report = FinishRun(holder.session_id, run_id, 1, db.clock.now(), COMPLETED, b"1")
        first, second = db.execute(report, report)
        assert (first.verdict, second) == (Verdict.RECORDED, Reported(Verdict.RECORDED))
        assert first.final is not None

    def test_another_end_of_a_lease_that_has_ended_does_not_replace_it(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder)
        db.finish(holder, run_id, result=b"1")
        with db.unchanged():
            db.finish(holder, run_id, proposed=FAILED, error=b'"late"')

    def test_only_the_holder_reports(self, db: Database) -> None:
        lost, holder = db.session(), db.session()
        run_id = db.running(lost)
        db.do(EndSession(lost.session_id, 1, "lost", lost=True, max_losses=5))
        db.lease(holder, run_id)
        db.start(holder, run_id, attempt=2)
        wrong = ((lost, 1), (lost, 2), (holder, 1), (holder, 3), (db.session(), 2))
        with db.unchanged():
            for session, attempt in wrong:
                assert db.finish(session, run_id, attempt, result=b"1") == Reported(Verdict.LEASE_LOST)
        assert db.finish(holder, run_id, attempt=2).verdict is Verdict.RECORDED

    def test_a_released_run_is_not_reported_any_more(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder)
        db.do(ReleaseRuns(holder.session_id, (Release(run_id, 1, "drained"),)))
        with db.unchanged():
            assert db.finish(holder, run_id) == Reported(Verdict.LEASE_LOST)

    def test_a_report_on_a_run_that_is_not_there_is_recorded_as_gone(self, db: Database) -> None:
        assert db.finish(db.session(), new_id(), result=b"1") == Reported(Verdict.GONE)

    @pytest.mark.parametrize(
        ("proposed", "written"),
        [(COMPLETED, S.COMPLETED), (FAILED, S.CANCELLED), (Proposed(S.CANCELLED), S.CANCELLED)],
    )
    def test_a_report_out_of_cancelling_ends_the_run(
        self, db: Database, proposed: Proposed, written: StateType
    ) -> None:
        holder = db.session()
        run_id = db.cancelling(holder, retries=3)
        reported = db.finish(holder, run_id, proposed=proposed)
        assert reported.final is not None
        assert db.run(run_id).state.type is written
        assert db.finish(holder, run_id, proposed=proposed) == Reported(Verdict.RECORDED)

    # --- ReleaseRuns ----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("started", [True, False])
    def test_a_released_run_waits_at_the_head_and_nothing_counts(self, db: Database, started: bool) -> None:
        holder = db.session()
        due = START - SECOND
        run_id = db.running(holder, due=due) if started else db.leased(holder, due=due)
        freed = db.do(ReleaseRuns(holder.session_id, (Release(run_id, 1, "draining"),)))
        assert freed == Freed((QueuedRecord(run_id, "k", 0, RETRY_LANE, due),))
        record = db.run(run_id)
        assert (record.due, record.failures, record.losses) == (due, 0, 0)
        assert (record.state.name, record.state.message, record.state.due) == ("Requeued", "draining", due)
        assert record.expected_start_time == due

    def test_a_release_may_be_for_later(self, db: Database) -> None:
        holder = db.session()
        run_id = db.leased(holder)
        freed = db.do(ReleaseRuns(holder.session_id, (Release(run_id, 1, "snoozed", 2.5),)))
        due = START + 2.5 * SECOND
        assert freed == Freed((QueuedRecord(run_id, "k", 0, RETRY_LANE, due),))
        assert db.refill() == Refill((), due)

    def test_a_release_of_a_lease_that_is_not_ones_own_changes_nothing(self, db: Database) -> None:
        holder, other = db.session(), db.session()
        run_id = db.leased(holder)
        ended = db.running(holder)
        db.finish(holder, ended)
        with db.unchanged():
            for session, run, attempt in (
                (holder, run_id, 2),
                (holder, run_id, 0),
                (other, run_id, 1),
                (holder, ended, 1),
                (holder, new_id(), 1),
            ):
                assert db.do(ReleaseRuns(session.session_id, (Release(run, attempt, ""),))) == Freed()

    def test_of_several_releases_each_stands_for_itself(self, db: Database) -> None:
        holder = db.session()
        one, two, three = (db.leased(holder) for _ in range(3))
        releases = (Release(one, 1, "a"), Release(two, 7, "b"), Release(one, 1, "twice"), Release(three, 1, "c"))
        freed = db.do(ReleaseRuns(holder.session_id, releases))
        assert [run.id for run in freed.queued] == [one, three]

    def test_a_release_of_a_run_that_is_being_cancelled_cancels_it(self, db: Database) -> None:
        holder = db.session()
        run_id = db.cancelling(holder)
        freed = db.do(ReleaseRuns(holder.session_id, (Release(run_id, 1, "given back"),)))
        assert freed == Freed(final=(FinalRun(run_id, "k", S.CANCELLED, "Cancelled", "given back"),))

    def test_any_number_of_releases_parks_nothing(self, db: Database) -> None:
        holder = db.session()
        run_id = db.queued()
        for attempt in range(1, 9):
            db.lease(holder, run_id)
            db.do(ReleaseRuns(holder.session_id, (Release(run_id, attempt, ""),)))
        assert (db.run(run_id).attempt, db.run(run_id).losses) == (8, 0)
        assert db.run(run_id).state.type is S.SCHEDULED

    # --- EndSession -----------------------------------------------------------------------------------------

    def test_a_lost_session_frees_all_it_held_and_the_loss_counts(self, db: Database) -> None:
        holder, other = db.session(), db.session()
        pending, running, others = db.leased(holder, priority=3), db.running(holder), db.running(other)
        freed = db.do(EndSession(holder.session_id, 1, "The worker was lost.", lost=True, max_losses=5))
        expected = (
            QueuedRecord(pending, "k", 3, RETRY_LANE, START),
            QueuedRecord(running, "k", 0, RETRY_LANE, START),
        )
        assert freed == Freed(expected)
        for run_id in (pending, running):
            record = db.run(run_id)
            assert (record.losses, record.failures, record.due) == (1, 0, START)
            assert (record.state.name, record.state.message) == ("Requeued", "The worker was lost.")
        assert db.run(others).state.type is S.RUNNING
        assert [s.id for s in db.wait(db.store.backlog()).sessions] == [other.session_id]

    def test_a_run_that_loses_its_session_too_often_is_parked(self, db: Database) -> None:
        run_id = db.queued()
        for attempt in (1, 2, 3):
            holder = db.session()
            db.lease(holder, run_id)
            freed = db.do(EndSession(holder.session_id, 1, "lost", lost=True, max_losses=3))
            assert bool(freed.queued) is (attempt < 3)
        final = FinalRun(run_id, "k", S.CRASHED, StateName.PARKED, "lost (3 times)")
        assert freed == Freed(final=(final,))
        assert db.wait(db.store.outcomes([run_id])) == {run_id: final}
        assert (db.run(run_id).losses, db.run(run_id).attempt) == (3, 3)
        assert db.refilled() == []

    def test_a_run_that_was_reported_as_not_ready_has_not_cost_its_worker(self, db: Database) -> None:
        run_id = db.queued()
        holder, next_one = db.session(), db.session()
        db.lease(holder, run_id)
        surface = Surface(Proposed(S.PENDING, "NotReady"))
        report = ReportedState(new_id(), START, make_run(id=run_id), surface)
        db.do(RecordReports((report,), holder.session_id))
        assert db.run(run_id).state.name == "NotReady"
        freed = db.do(EndSession(holder.session_id, 1, "lost", lost=True, max_losses=1))
        assert ([run.id for run in freed.queued], db.run(run_id).losses) == ([run_id], 0)
        db.lease(next_one, run_id)
        freed = db.do(EndSession(next_one.session_id, 1, "lost", lost=True, max_losses=1))
        assert [(run.id, run.name) for run in freed.final] == [(run_id, StateName.PARKED)]

    def test_a_session_that_quits_frees_its_runs_and_nothing_counts(self, db: Database) -> None:
        holder = db.session()
        run_id = db.running(holder)
        freed = db.do(EndSession(holder.session_id, 1, "The worker quit.", lost=False, max_losses=1))
        assert [run.id for run in freed.queued] == [run_id]
        assert db.run(run_id).losses == 0

    def test_a_run_that_was_being_cancelled_is_cancelled_with_its_session(self, db: Database) -> None:
        holder = db.session()
        run_id = db.cancelling(holder)
        freed = db.do(EndSession(holder.session_id, 1, "lost", lost=True, max_losses=1))
        assert freed == Freed(final=(FinalRun(run_id, "k", S.CANCELLED, "Cancelled", "lost"),))

    def test_a_session_that_was_resumed_meanwhile_is_left_alone(self, db: Database) -> None:
        holder = db.session("t")
        run_id = db.running(holder)
        db.do(ResumeSession(holder.session_id, db.broker_id, "t", ((run_id, 1),)))
        with db.unchanged():
            assert db.do(EndSession(holder.session_id, 1, "lost", lost=True, max_losses=5)) == Freed()
        assert db.wait(db.store.backlog()).sessions == (SessionRecord(holder.session_id, 2, "worker"),)
        freed = db.do(EndSession(holder.session_id, 2, "lost", lost=True, max_losses=5))
        assert [run.id for run in freed.queued] == [run_id]

    def test_a_session_ends_once(self, db: Database) -> None:
        holder = db.session()
        db.leased(holder)
        end = EndSession(holder.session_id, 1, "lost", lost=True, max_losses=5)
        assert db.do(end).queued
        with db.unchanged():
            assert db.do(end) == Freed()

    def test_an_ended_session_leases_starts_reports_and_resumes_nothing(self, db: Database) -> None:
        holder = db.session("t")
        run_id = db.running(holder)
        db.do(EndSession(holder.session_id, 1, "lost", lost=True, max_losses=5))
        with db.unchanged():
            assert db.do(LeaseRuns(holder, (run_id,))) == (Refusal.SESSION_MOVED,)
            assert db.do(StartRun(holder.session_id, run_id, 1, db.clock.now())) is Verdict.LEASE_LOST
            assert db.finish(holder, run_id).verdict is Verdict.LEASE_LOST
            resume = ResumeSession(holder.session_id, db.broker_id, "t", ((run_id, 1),))
            assert db.do(resume) is None

    # --- OpenSession, ResumeSession -------------------------------------------------------------------------

    def test_a_resumed_session_settles_both_lists(self, db: Database) -> None:
        holder, other = db.session("t"), db.session()
        pending, running, unheard = db.leased(holder), db.running(holder), db.leased(holder, priority=2)
        finished, retrying = db.running(holder), db.running(holder, retries=1)
        db.finish(holder, finished)
        db.finish(holder, retrying, proposed=FAILED, retry_after=60.0)
        foreign, unknown = db.running(other), new_id()
        listed = ((pending, 1), (running, 1), (finished, 1), (retrying, 1), (foreign, 1), (unknown, 1))
        resumption = db.do(ResumeSession(holder.session_id, db.broker_id, "t", listed))
        assert resumption == Resumption(
            epoch=2,
            client_id="worker",
            held=(HeldRecord(pending, 1, "k", started=False), HeldRecord(running, 1, "k", started=True)),
            reported=(finished, retrying),
            lost=((foreign, 1), (unknown, 1)),
            freed=Freed((QueuedRecord(unheard, "k", 2, RETRY_LANE, START),)),
        )
        assert db.run(unheard).losses == 0
        assert db.run(foreign).state.type is S.RUNNING
        assert db.finish(holder, running).verdict is Verdict.RECORDED

    def test_a_resumed_session_still_holds_what_is_being_cancelled(self, db: Database) -> None:
        holder = db.session("t")
        run_id = db.cancelling(holder)
        resumption = db.do(ResumeSession(holder.session_id, db.broker_id, "t", ((run_id, 1),)))
        assert resumption is not None
        assert resumption.held == (HeldRecord(run_id, 1, "k", started=True, cancelling=True),)

    def test_a_report_and_a_resume_in_one_group_settle_the_run(self, db: Database) -> None:
        """The connection broke after the report; its run is still in the list, for want of a verdict."""
        holder = db.session("t")
        run_id = db.running(holder)
        report = FinishRun(holder.session_id, run_id, 1, db.clock.now(), COMPLETED)
        resume = ResumeSession(holder.session_id, db.broker_id, "t", ((run_id, 1),))
        first, resumption, again = db.execute(report, resume, report)
        assert (first.verdict, again) == (Verdict.RECORDED, Reported(Verdict.RECORDED))
        assert (resumption.reported, resumption.lost) == ((run_id,), ())

    def test_another_attempt_than_the_one_that_is_held_is_not_resumed(self, db: Database) -> None:
        holder = db.session("t")
        run_id = db.queued()
        db.lease(holder, run_id)
        db.do(ReleaseRuns(holder.session_id, (Release(run_id, 1, ""),)))
        db.lease(holder, run_id)
        resumption = db.do(ResumeSession(holder.session_id, db.broker_id, "t", ((run_id, 1),)))
        assert resumption is not None
        assert (resumption.held, resumption.lost) == ((), ((run_id, 1),))
        assert [run.id for run in resumption.freed.queued] == [run_id]

    def test_a_session_is_resumed_with_its_token_only(self, db: Database) -> None:
        holder = db.session("t")
        run_id = db.running(holder)
        with db.unchanged():
            for session_id, token in ((holder.session_id, "T"), (holder.session_id, ""), (new_id(), "t")):
                resume = ResumeSession(session_id, db.broker_id, token, ((run_id, 1),))
                assert db.do(resume) is None
        assert db.wait(db.store.backlog()).sessions == (SessionRecord(holder.session_id, 1, "worker"),)

    def test_a_token_serves_every_resume_and_the_epochs_go_up_by_one(self, db: Database) -> None:
        holder = db.session("t")
        for epoch in (2, 3, 4):
            resumption = db.do(ResumeSession(holder.session_id, db.broker_id, "t", ()))
            assert resumption is not None
            assert resumption.epoch == epoch

    def test_after_a_resume_leases_of_the_old_epoch_are_refused(self, db: Database) -> None:
        holder = db.session("t")
        run_id = db.queued()
        db.do(ResumeSession(holder.session_id, db.broker_id, "t", ()))
        run = make_run(holder=holder)
        assert db.do(LeaseRuns(holder, (run_id,))) == (Refusal.SESSION_MOVED,)
        assert db.create(run) == (Created(run.id, Creation.CREATED),)
        assert db.lease(dataclasses.replace(holder, epoch=2), run_id)

    def test_a_session_resumed_at_another_broker_is_that_brokers(self, db: Database) -> None:
        holder = db.session("t")
        run_id = db.queued()
        assert db.do(ResumeSession(holder.session_id, "elsewhere", "t", ())) is not None
        assert db.do(LeaseRuns(dataclasses.replace(holder, epoch=2), (run_id,))) == (Refusal.SESSION_MOVED,)
        assert db.lease(Holder(holder.session_id, "elsewhere", 2), run_id)

    def test_two_resumes_in_one_group_come_one_after_the_other(self, db: Database) -> None:
        holder = db.session("t")
        resume = ResumeSession(holder.session_id, db.broker_id, "t", ())
        first, second = db.execute(resume, resume)
        assert (first.epoch, second.epoch) == (2, 3)

    def test_a_session_id_is_opened_once(self, db: Database) -> None:
        holder = db.session()
        (outcome,) = db.execute(OpenSession(holder.session_id, db.broker_id, "other", hash_token("x")))
        assert isinstance(outcome, Exception)
        assert db.wait(db.store.backlog()).sessions == (SessionRecord(holder.session_id, 1, "worker"),)

    # --- StartBroker, BeatBroker ----------------------------------------------------------------------------

    def test_a_new_broker_adopts_the_sessions_as_they_are(self, db: Database) -> None:
        holder = db.session("t")
        kept, unheard = db.running(holder), db.leased(holder)
        with db.unchanged():
            db.do(StartBroker("next", "2.0"))
        backlog = db.wait(db.store.backlog())
        assert backlog.sessions == (SessionRecord(holder.session_id, 1, "worker"),)
        assert (backlog.queued, backlog.leased) == (0, 2)
        waiting = db.queued()
        assert db.do(LeaseRuns(holder, (waiting,))) == (Refusal.SESSION_MOVED,)
        resumption = db.do(ResumeSession(holder.session_id, "next", "t", ((kept, 1),)))
        assert resumption is not None
        assert [run.id for run in resumption.held] == [kept]
        assert [run.id for run in resumption.freed.queued] == [unheard]
        assert db.finish(holder, kept).verdict is Verdict.RECORDED
        assert db.lease(Holder(holder.session_id, "next", 2), waiting)
        db.start_broker()

    def test_a_broker_starts_and_beats_as_often_as_it_likes(self, db: Database) -> None:
        for _ in range(3):
            db.start_broker()
            db.do(BeatBroker(db.broker_id))
            db.clock.advance(2)
        assert db.query("SELECT count(*) FROM broker")[0][0] == 1
        (heartbeat,) = db.query("SELECT heartbeat FROM broker")[0]
        assert heartbeat == START + 4 * SECOND

    def test_a_backlog_counts_what_waits_and_what_is_held(self, db: Database) -> None:
        holder = db.session()
        db.queued()
        db.queued(due=START + SECOND)
        db.leased(holder)
        db.running(holder)
        db.finish(holder, db.running(holder))
        backlog = db.wait(db.store.backlog())
        assert (backlog.queued, backlog.leased) == (2, 2)

    # --- Groups ---------------------------------------------------------------------------------------------

    def test_an_operation_that_fails_fails_alone(self, db: Database) -> None:
        one, two, broken = make_run(), make_run(), make_run()
        outcomes = db.execute(
            CreateRuns((one,)), Broken(before=CreateRuns((broken,))), CreateRuns((two,)), BeatBroker(db.broker_id)
        )
        assert [type(outcome) for outcome in outcomes] == [tuple, ValueError, tuple, type(None)]
        assert db.refilled() == [one.id, two.id]
        assert db.wait(db.store.run_by_id(broken.id)) is None

    def test_a_group_takes_effect_in_its_order(self, db: Database) -> None:
        holder = db.session()
        run = make_run()
        created, leased, started, finished, again = db.execute(
            CreateRuns((run,)),
            LeaseRuns(holder, (run.id,)),
            StartRun(holder.session_id, run.id, 1, db.clock.now()),
            FinishRun(holder.session_id, run.id, 1, db.clock.now(), COMPLETED),
            LeaseRuns(holder, (run.id,)),
        )
        assert created[0].how is Creation.CREATED
        assert isinstance(leased[0], LeasedRun)
        assert (started, finished.verdict) == (Verdict.RECORDED, Verdict.RECORDED)
        assert again == (Refusal.TAKEN,)

    # --- History --------------------------------------------------------------------------------------------

    def test_the_history_cannot_be_changed(self, db: Database) -> None:
        db.queued()
        for change in ("name = 'x'", "type = 'COMPLETED'", "timestamp = timestamp + 1"):
            with pytest.raises(Exception, match="append-only"):
                db.query(f"UPDATE task_run_state SET {change}")

    @pytest.mark.parametrize(
        "change",
        [
            "state_type = 'NONSENSE'",
            "priority = 10",
            "lane = 2",
            "attempt = -1",
            "session_id = 's'",
            "id = NULL",
        ],
    )
    def test_nonsense_cannot_be_written(self, db: Database, change: str) -> None:
        db.queued()
        with pytest.raises(Exception, match=r"(?i)constraint"):
            db.query(f"UPDATE task_run SET {change}")

    def test_states_of_a_run_are_told_apart_by_their_time_even_when_the_clock_stands_or_goes_back(
        self, db: Database
    ) -> None:
        holder = db.session()
        run_id = db.queued(retries=9)
        for attempt in range(1, 5):
            db.lease(holder, run_id)
            db.clock.set_wall(-1.5)
            db.start(holder, run_id, attempt)
            db.finish(holder, run_id, attempt, FAILED)
        history = db.history(run_id)
        assert all(one.timestamp < next_.timestamp for one, next_ in pairwise(history))
        assert [state.attempt for state in history] == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]

    @PROPERTY
    @given(seed=st.integers(0, 2**32))
    def test_whatever_sessions_do_the_history_is_whole(self, db: Database, seed: int) -> None:
        """Random operations of two sessions on a few runs, right and wrong ones; the audit looks at each end."""
        choose = random.Random(seed)
        holders = [db.session("t"), db.session("t")]
        run_ids = [db.queued(new_id(), retries=1) for _ in range(3)]
        for _ in range(15):
            i = choose.randrange(2)
            holder, run_id, attempt = holders[i], choose.choice(run_ids), choose.randint(1, 3)
            session_id = holder.session_id
            match choose.randrange(7):
                case 0 | 1:
                    db.do(LeaseRuns(holder, (run_id,)))
                case 2:
                    db.do(StartRun(session_id, run_id, attempt, db.clock.now()))
                case 3:
                    db.do(
                        FinishRun(session_id, run_id, attempt, db.clock.now(), choose.choice((FAILED, COMPLETED)))
                    )
                case 4:
                    db.do(ReleaseRuns(session_id, (Release(run_id, attempt, ""),)))
                case 5:
                    listed = ((run_id, attempt),)
                    resumed = db.do(ResumeSession(session_id, db.broker_id, "t", listed))
                    if resumed is not None:
                        holders[i] = dataclasses.replace(holder, epoch=resumed.epoch)
                case _:
                    db.do(EndSession(session_id, holder.epoch, "lost", lost=True, max_losses=3))
                    holders[i] = db.session("t")
        db.audit()

    # --- Refills --------------------------------------------------------------------------------------------

    @PROPERTY
    @given(
        rows=st.lists(
            st.tuples(st.integers(0, 9), st.sampled_from((RETRY_LANE, SCHEDULED_LANE)), st.integers(-3, 3)),
            max_size=30,
        ),
        limit=st.integers(1, 35),
    )
    def test_a_refill_is_the_first_due_runs_in_order(
        self, db: Database, rows: list[tuple[int, int, int]], limit: int
    ) -> None:
        key = new_id()
        now = db.clock.now()
        # What was released comes due later than it was, or is due as before.
        firsts = [min(due, 0) if lane == RETRY_LANE else due for _, lane, due in rows]
        runs = [make_run(key, priority=row[0], due=now + due) for row, due in zip(rows, firsts, strict=True)]
        db.create(*runs, make_run("another " + key))
        holder = db.session()
        retried = [(run.id, due) for run, (_, lane, due) in zip(runs, rows, strict=True) if lane == RETRY_LANE]
        db.lease(holder, *(run_id for run_id, _ in retried))
        releases = [Release(run_id, 1, "", due / SECOND if due > 0 else None) for run_id, due in retried]
        db.do(ReleaseRuns(holder.session_id, tuple(releases)))
        queued = [
            QueuedRecord(run.id, key, priority, lane, now + due)
            for run, (priority, lane, due) in zip(runs, rows, strict=True)
        ]
        due = sorted((r for r in queued if r.due <= now), key=lambda r: (-r.priority, r.lane, r.due, r.id))
        later = [r.due for r in queued if r.due > now]
        assert db.refill(key, limit) == Refill(tuple(due[:limit]), min(later, default=None))

    def test_what_is_not_queued_is_in_no_refill(self, db: Database) -> None:
        holder = db.session()
        db.leased(holder)
        db.running(holder)
        db.cancelling(holder)
        db.finish(holder, db.running(holder))
        db.do(LeaseRuns(holder, (db.queued(expires=START - 1),)))
        assert db.refill() == Refill((), None)
        assert db.refill("unknown") == Refill((), None)

    # --- Reads ----------------------------------------------------------------------------------------------

    def test_outcomes_are_of_those_that_are_there(self, db: Database) -> None:
        holder = db.session()
        queued, unknown = db.queued(), new_id()
        ended = [db.leased(holder) for _ in range(3)]
        for i, run_id in enumerate(ended):
            db.finish(holder, run_id, result=b"%d" % i)
        outcomes = db.wait(db.store.outcomes([queued, unknown, *ended]))
        assert outcomes.keys() == {queued, *ended}
        assert outcomes[queued] is None
        assert [(final := outcomes[run_id]) and final.result for run_id in ended] == [b"0", b"1", b"2"]
        assert db.wait(db.store.outcomes([])) == {}

    def test_outcomes_of_more_runs_than_one_read_takes(self, db: Database) -> None:
        runs = [make_run() for _ in range(1201)]
        db.create(*runs)
        assert len(db.wait(db.store.outcomes([run.id for run in runs]))) == 1201

    def test_an_unknown_run_has_no_record_and_no_history(self, db: Database) -> None:
        assert db.wait(db.store.run_by_id(new_id())) is None
        assert db.history(new_id()) == []

    def test_the_hash_of_a_payload_tells_key_and_parameters_apart(self) -> None:
        assert payload_hash("a", b"bc") != payload_hash("ab", b"c")
        assert payload_hash("a", b"bc") == payload_hash("a", b"bc")
