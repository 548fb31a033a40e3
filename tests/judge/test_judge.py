"""Each kind of violation: a history that has it is condemned for it, and its innocent neighbour is not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from . import (
    BROKER,
    CLOCK,
    Acknowledged,
    CancelAnswered,
    Event,
    Executed,
    Fault,
    Kind,
    LeaseLost,
    Postponed,
    Quiet,
    Received,
    Recorded,
    Refused,
    Released,
    Reported,
    RunRow,
    Snapshot,
    Started,
    StateRow,
    Submitted,
    Subscribed,
    Told,
    Watched,
    dump,
    judge,
    load,
)


@dataclass
class Story:
    """Writes a history: `p` submits, `w` and `v` work, in the sessions `s` and `t`."""

    events: list[Event] = field(default_factory=list)
    runs: dict[str, RunRow] = field(default_factory=dict)
    states: list[StateRow] = field(default_factory=list)
    _time: int = 0

    def tick(self) -> float:
        self._time += 1
        return float(self._time)

    def add(self, kind: type, **fields: object) -> None:
        self.events.append(kind(at=self.tick(), **fields))

    def submit(
        self, run: str = "r", *, payload: str = "1", idempotency: str | None = None, there: bool = True
    ) -> None:
        self.add(Submitted, producer="p", run=run, key="k", payload=payload, idempotency=idempotency)
        if there:
            self.runs[run] = RunRow(run, "k", "", "", "", 0, None, idempotency, payload)
            self.state(run, "SCHEDULED")

    def acknowledge(self, run: str = "r", as_run: str | None = None) -> None:
        self.add(Acknowledged, producer="p", run=run, as_run=as_run or run)

    def state(
        self, run: str, type_: str, session: str | None = None, attempt: int | None = None, name: str = ""
    ) -> None:
        row = self.runs[run]
        if attempt is None:
            attempt = row.attempt + (type_ == "PENDING")
        name = name or type_.capitalize()
        state = StateRow(f"state-{len(self.states)}", run, type_, name, 1000 * len(self.states), attempt, session)
        self.states.append(state)
        held = type_ in ("PENDING", "RUNNING", "CANCELLING")
        holder = (session or row.session) if held else None
        self.runs[run] = replace(row, type=type_, name=name, state_id=state.id, attempt=attempt, session=holder)

    def subscribe(self, worker: str = "w", session: str = "s", limit: int = 1, **lists: object) -> None:
        self.add(Subscribed, worker=worker, session=session, limit=limit, **lists)

    def of_lease(self, kind: type, run: str, attempt: int, worker: str, session: str, **more: object) -> None:
        self.add(kind, worker=worker, session=session, run=run, attempt=attempt, **more)

    def deliver(self, run: str = "r", attempt: int = 1, worker: str = "w", session: str = "s") -> None:
        self.state(run, "PENDING", session)
        self.of_lease(Received, run, attempt, worker, session)

    def start(self, run: str = "r", attempt: int = 1, worker: str = "w", session: str = "s") -> None:
        self.of_lease(Started, run, attempt, worker, session)
        self.state(run, "RUNNING", session)

    def execute(self, run: str = "r", attempt: int = 1, worker: str = "w", session: str = "s") -> None:
        self.of_lease(Executed, run, attempt, worker, session)

    def report(
        self, run: str = "r", attempt: int = 1, worker: str = "w", session: str = "s", type_: str = "COMPLETED"
    ) -> None:
        self.of_lease(Reported, run, attempt, worker, session, type=type_)

    def record(self, run: str = "r", attempt: int = 1, worker: str = "w", session: str = "s") -> None:
        self.of_lease(Recorded, run, attempt, worker, session)

    def complete(self, run: str = "r", attempt: int = 1, worker: str = "w", session: str = "s") -> None:
        """From the start to the verdict."""
        self.start(run, attempt, worker, session)
        self.execute(run, attempt, worker, session)
        self.report(run, attempt, worker, session)
        self.state(run, "COMPLETED", session)
        self.record(run, attempt, worker, session)

    def requeue(self, run: str = "r", name: str = "Requeued", session: str | None = None) -> None:
        self.state(run, "SCHEDULED", session, name=name)

    def fault(self, who: str = "w", what: str = "killed", until: float | None = None) -> None:
        self.add(Fault, who=who, what=what, until=until)

    def snapshot(self) -> None:
        self.add(Snapshot, runs=tuple(self.runs.values()), states=tuple(self.states))

    def end(self, *, quiet: bool = True) -> list[Event]:
        if quiet:
            self.add(Quiet)
        self.snapshot()
        return self.events


def kinds(story: Story, *, quiet: bool = True, ordered: tuple[str, ...] = ()) -> list[Kind]:
    return [violation.kind for violation in judge(story.end(quiet=quiet), ordered=ordered)]


@pytest.fixture
def story() -> Story:
    """A run that was acknowledged, and a worker with one slot."""
    story = Story()
    story.submit()
    story.acknowledge()
    story.subscribe()
    return story


def test_a_history_in_which_all_is_well(story: Story) -> None:
    story.add(Watched, producer="p", run="r")
    story.deliver()
    story.complete()
    story.add(Told, producer="p", run="r", type="COMPLETED")
    assert kinds(story, ordered=("k",)) == []


def test_a_history_survives_its_way_through_a_file(story: Story) -> None:
    story.deliver()
    story.fault(until=9.0)
    history = story.end()
    assert load([dump(event) for event in history]) == history


def test_a_history_without_the_database_proves_nothing() -> None:
    with pytest.raises(ValueError, match="snapshot"):
        judge([])


def test_a_run_that_is_not_there_is_lost() -> None:
    story = Story()
    story.submit(there=False)
    assert kinds(story) == []  # nobody was promised anything
    story.acknowledge()
    assert kinds(story) == [Kind.LOST]


def test_a_run_that_waits_for_ever_is_lost(story: Story) -> None:
    assert kinds(story, quiet=False) == []
    assert kinds(story) == [Kind.LOST]


def test_a_run_that_is_held_for_ever_is_stuck(story: Story) -> None:
    story.deliver()
    story.start()
    assert kinds(story, quiet=False) == []
    assert kinds(story) == [Kind.STUCK]


def test_a_run_that_nobody_asked_for_is_a_phantom(story: Story) -> None:
    story.deliver()
    story.complete()
    story.runs["x"] = RunRow("x", "k", "", "", "", 0, None, None, "1")
    story.state("x", "SCHEDULED")
    assert kinds(story) == [Kind.PHANTOM]


@pytest.mark.parametrize(("code", "found"), [("bad_field", [Kind.PHANTOM]), ("id_conflict", [])])
def test_a_run_that_was_refused_is_a_phantom_unless_it_was_there(
    story: Story, code: str, found: list[Kind]
) -> None:
    story.deliver()
    story.complete()
    story.submit("x")
    story.add(Refused, producer="p", run="x", code=code)
    story.state("x", "CANCELLED")
    assert kinds(story) == found


def test_a_run_that_is_completed_and_was_not_executed_is_a_phantom(story: Story) -> None:
    story.deliver()
    story.start()
    story.report()
    story.state("r", "COMPLETED", "s")
    story.record()
    assert kinds(story) == [Kind.PHANTOM]


def test_a_push_that_is_not_in_the_history(story: Story) -> None:
    story.deliver()
    story.complete()
    story.states[1] = replace(story.states[1], session="t")
    assert Kind.UNCOMMITTED in kinds(story)


def test_two_recorded_completions(story: Story) -> None:
    story.deliver()
    story.fault()
    story.requeue()
    story.deliver("r", 2, "v", "t")
    story.execute()
    story.report()
    story.of_lease(LeaseLost, "r", 1, "w", "s")
    story.complete("r", 2, "v", "t")
    assert kinds(story) == []
    story.record()
    assert set(kinds(story)) == {Kind.DOUBLE_COMPLETION, Kind.UNWRITTEN_VERDICT}


@pytest.mark.parametrize(("session", "found"), [("t", []), ("s", [Kind.STALE_REPORT])])
def test_a_report_of_somebody_else_is_stale(story: Story, session: str, found: list[Kind]) -> None:
    story.deliver()
    story.fault()
    story.requeue()
    story.deliver("r", 2, "v", "t")
    story.execute("r", 2)
    story.state("r", "COMPLETED", session)
    assert kinds(story) == found


def test_a_verdict_on_what_was_not_written(story: Story) -> None:
    story.deliver()
    story.start()
    story.execute()
    story.report()
    story.record()
    assert kinds(story, quiet=False) == [Kind.UNWRITTEN_VERDICT]


def test_a_report_that_was_never_answered(story: Story) -> None:
    story.deliver()
    story.start()
    story.execute()
    story.report()
    story.state("r", "COMPLETED", "s")
    assert kinds(story) == [Kind.NO_VERDICT]
    story.record()
    assert kinds(story) == []


@pytest.mark.parametrize("at_the_resumption", [True, False])
def test_a_report_that_is_written_and_said_to_be_lost(story: Story, at_the_resumption: bool) -> None:
    story.deliver()
    story.start()
    story.execute()
    story.report()
    story.state("r", "COMPLETED", "s")
    if at_the_resumption:
        story.subscribe(lost=(("r", 1),))
    else:
        story.of_lease(LeaseLost, "r", 1, "w", "s")
    assert kinds(story) == [Kind.WRONG_VERDICT]


def test_a_killed_worker_waits_for_no_verdict(story: Story) -> None:
    story.deliver()
    story.start()
    story.execute()
    story.report()
    story.state("r", "COMPLETED", "s")
    story.fault()
    assert kinds(story) == []


@pytest.mark.parametrize(("attempts", "found"), [((1, 2), False), ((1, 1), True), ((2, 1), True), ((1, 3), True)])
def test_attempts_go_up_by_one(story: Story, attempts: tuple[int, int], found: bool) -> None:
    first, second = attempts
    story.state("r", "PENDING", "s", first)
    story.requeue()
    story.state("r", "PENDING", "s", second)
    assert (Kind.ATTEMPT in kinds(story, quiet=False)) == found


def test_an_attempt_that_is_delivered_or_started_twice(story: Story) -> None:
    story.deliver()
    story.of_lease(Received, "r", 1, "w", "s")
    assert kinds(story, quiet=False) == [Kind.ATTEMPT]
    story.of_lease(Started, "r", 1, "w", "s")
    story.of_lease(Started, "r", 1, "w", "s")
    assert kinds(story, quiet=False) == [Kind.ATTEMPT, Kind.ATTEMPT]


def test_a_transition_that_is_forbidden(story: Story) -> None:
    story.deliver()
    story.complete()
    story.state("r", "RUNNING", "s")
    assert Kind.ILLEGAL_HISTORY in kinds(story, quiet=False)


@pytest.mark.parametrize(("name", "found"), [("Late", []), ("Requeued", [Kind.ILLEGAL_HISTORY])])
def test_what_waits_may_be_renamed_and_no_more(story: Story, name: str, found: list[Kind]) -> None:
    story.requeue(name=name)
    assert kinds(story, quiet=False) == found


def test_a_row_that_does_not_agree_with_its_history(story: Story) -> None:
    story.runs["r"] = replace(story.runs["r"], type="CANCELLED")
    assert kinds(story) == [Kind.ILLEGAL_HISTORY]


def test_a_history_that_goes_back_in_time(story: Story) -> None:
    story.deliver()
    story.states[1] = replace(story.states[1], timestamp=story.states[0].timestamp)
    assert kinds(story, quiet=False) == [Kind.ILLEGAL_HISTORY]


def test_a_history_that_is_rewritten(story: Story) -> None:
    story.snapshot()
    assert kinds(story, quiet=False) == []
    story.states[0] = replace(story.states[0], timestamp=-1)
    assert kinds(story, quiet=False) == [Kind.REWRITTEN_HISTORY]


def test_a_history_that_is_cut(story: Story) -> None:
    story.deliver()
    story.snapshot()
    gone = story.states.pop(0)
    found = judge(story.end(quiet=False))
    assert any(violation.kind is Kind.REWRITTEN_HISTORY and "gone" in violation.what for violation in found)
    assert gone.name == "Scheduled"


def test_one_idempotency_key_with_two_runs() -> None:
    story = Story()
    story.submit("a", idempotency="i")
    story.acknowledge("a")
    story.add(Submitted, producer="p", run="b", key="k", payload="1", idempotency="i")
    story.acknowledge("b", "a")
    assert kinds(story, quiet=False) == []
    story.submit("c", idempotency="i")
    story.acknowledge("c")
    assert kinds(story, quiet=False) == [Kind.IDEMPOTENCY]


def test_one_id_with_an_idempotency_key_and_without(story: Story) -> None:
    """One producer has both under way. Which of them is acknowledged, the payload says."""
    story.submit("a", idempotency="i")
    story.acknowledge("a")
    story.add(Submitted, producer="p", run="b", key="k", payload="2")
    story.add(Submitted, producer="p", run="b", key="k", payload="1", idempotency="i")
    story.add(Refused, producer="p", run="b", code="idempotency_conflict")
    story.runs["b"] = RunRow("b", "k", "", "", "", 0, None, None, "2")
    story.state("b", "SCHEDULED")
    story.add(Acknowledged, producer="p", run="b", as_run="b", payload="2")
    assert kinds(story, quiet=False) == []
    story.add(Acknowledged, producer="p", run="b", as_run="b", payload="1")
    assert Kind.IDEMPOTENCY in kinds(story, quiet=False)


def test_one_id_with_two_payloads(story: Story) -> None:
    story.add(Submitted, producer="p", run="r", key="k", payload="2")
    story.add(Refused, producer="p", run="r", code="id_conflict")
    assert kinds(story, quiet=False) == []
    story.add(Submitted, producer="q", run="r", key="k", payload="2")
    story.add(Acknowledged, producer="q", run="r", as_run="r")
    assert kinds(story, quiet=False) == [Kind.IDEMPOTENCY]


@pytest.mark.parametrize(("late", "found"), [(False, []), (True, [Kind.CANCELLED_START])])
def test_a_start_after_a_cancel(story: Story, late: bool, found: list[Kind]) -> None:
    if not late:  # the lease of a worker that was lost, who does not know it yet
        story.deliver()
        story.fault()
        story.requeue()
    story.state("r", "CANCELLED")
    story.add(CancelAnswered, run="r", type="CANCELLED")
    if late:
        story.of_lease(Received, "r", 1, "w", "s")
    story.of_lease(Started, "r", 1, "w", "s")
    assert [kind for kind in kinds(story) if kind is not Kind.UNCOMMITTED] == found


@pytest.mark.parametrize(
    ("until", "leased_first", "found"), [(50.0, True, False), (3.0, True, True), (50.0, False, True)]
)
def test_a_start_after_a_cancel_of_who_was_stopped_meanwhile(
    story: Story, until: float, leased_first: bool, found: bool
) -> None:
    for type_ in ("PENDING", "CANCELLED") if leased_first else ("CANCELLED", "PENDING"):
        story.state("r", type_, "s", 1)
    story.add(Fault, who="w", what="paused", until=until)
    story.tick()
    story.tick()
    story.add(CancelAnswered, run="r", type="CANCELLED")
    story.of_lease(Received, "r", 1, "w", "s")  # it lay in the socket all the time
    story.of_lease(Started, "r", 1, "w", "s")
    assert (Kind.CANCELLED_START in kinds(story, quiet=False)) is found


def test_more_in_flight_than_slots(story: Story) -> None:
    story.submit("r2")
    story.deliver()
    story.start()
    story.execute()
    story.report()  # the slot is free from here on
    story.deliver("r2")
    assert kinds(story, quiet=False) == []
    story.submit("r3")
    story.deliver("r3")
    assert kinds(story, quiet=False) == [Kind.OVER_LIMIT]


def test_what_is_lost_at_a_resumption_takes_no_slot(story: Story) -> None:
    story.submit("r2")
    story.deliver()
    story.fault(what="cut")
    story.subscribe(lost=(("r", 1),))
    story.deliver("r2")
    assert kinds(story, quiet=False) == []


@pytest.mark.parametrize(("ids", "found"), [(("r", "r2"), []), (("r2", "r"), [Kind.ORDER])])
def test_the_order_of_a_key(story: Story, ids: tuple[str, str], found: list[Kind]) -> None:
    story.submit("r2")
    story.acknowledge("r2")
    for run in ids:
        story.deliver(run)
        story.complete(run)
    assert kinds(story, ordered=("k",)) == found


def test_runs_that_are_leased_in_one_transaction_have_no_order(story: Story) -> None:
    story.submit("r2")
    story.acknowledge("r2")
    story.deliver("r2")
    story.deliver("r", worker="v", session="t")
    story.states[-1] = replace(story.states[-1], timestamp=story.states[-2].timestamp + 1)
    assert kinds(story, quiet=False, ordered=("k",)) == []


def test_what_was_refused_under_an_id_says_nothing_of_the_order(story: Story) -> None:
    story.events[0] = replace(story.events[0], priority=5, payload="2")
    story.add(Submitted, producer="p", run="r", key="k", payload="1")
    story.add(Acknowledged, producer="p", run="r", as_run="r", payload="1")
    story.add(Submitted, producer="p", run="r2", key="k", payload="1", priority=3)
    story.runs["r2"] = RunRow("r2", "k", "", "", "", 0, None, None, "1")
    story.state("r2", "SCHEDULED")
    story.acknowledge("r2")
    story.deliver("r2")
    story.deliver("r", worker="v", session="t")
    assert Kind.ORDER not in kinds(story, quiet=False, ordered=("k",))


def test_runs_that_were_submitted_at_the_same_time_have_no_order() -> None:
    story = Story()
    story.submit("a")
    story.submit("b")
    story.acknowledge("a")
    story.acknowledge("b")
    story.subscribe()
    for run in ("b", "a"):
        story.deliver(run)
        story.complete(run)
    assert kinds(story, ordered=("k",)) == []


@pytest.mark.parametrize(
    "excuse", ["none", "killed", "another", "broker", "released", "failed", "before", "pause"]
)
def test_a_redelivery_needs_a_cause(story: Story, excuse: str) -> None:
    if excuse == "before":
        story.fault()
    if excuse == "pause":
        story.fault(what="paused", until=50.0)
    story.deliver()
    name = "Requeued"
    reporter = None
    if excuse in ("killed", "another", "broker"):
        story.fault({"killed": "w", "another": "v", "broker": BROKER}[excuse])
    elif excuse == "released":
        story.of_lease(Released, "r", 1, "w", "s")
    elif excuse == "failed":
        story.report(type_="FAILED")
        name, reporter = "AwaitingRetry", "s"
    story.requeue(name=name, session=reporter)
    if excuse == "failed":
        story.record()
    story.deliver("r", 2, "v", "t")
    story.complete("r", 2, "v", "t")
    assert kinds(story) == ([Kind.REDELIVERY] if excuse in ("none", "another", "before") else [])


@pytest.mark.parametrize(("seconds", "clock"), [(0.0, False), (100.0, False), (100.0, True)])
def test_what_was_put_off_is_not_delivered_before(story: Story, seconds: float, clock: bool) -> None:
    story.deliver()
    story.of_lease(Released, "r", 1, "w", "s")
    story.requeue()
    if clock:
        story.fault(CLOCK, "set")
    story.of_lease(Postponed, "r", 1, "w", "s", until=story.tick() + seconds)
    story.deliver("r", 2, "v", "t")
    story.complete("r", 2, "v", "t")
    assert kinds(story) == ([Kind.TOO_EARLY] if seconds and not clock else [])


def test_a_producer_that_was_told_another_end(story: Story) -> None:
    story.add(Watched, producer="p", run="r")
    story.deliver()
    story.complete()
    story.add(Told, producer="p", run="r", type="CANCELLED")
    assert kinds(story) == [Kind.END_CHANGED]


def test_a_watcher_that_is_not_told(story: Story) -> None:
    story.add(Watched, producer="p", run="r")
    story.deliver()
    story.complete()
    assert kinds(story) == [Kind.UNTOLD]
    story.fault("p", "cut")
    assert kinds(story) == []


def test_a_watcher_that_is_told_twice(story: Story) -> None:
    story.add(Watched, producer="p", run="r")
    story.deliver()
    story.complete()
    story.add(Told, producer="p", run="r", type="COMPLETED")
    story.add(Told, producer="p", run="r", type="COMPLETED")
    assert kinds(story) == [Kind.UNTOLD]
