"""What holds whatever is proposed, in whatever order, whoever holds the run, and wherever the clock jumps to."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runlane.protocol.states import FINAL
from runlane_broker.orchestration.decide import decide
from runlane_broker.orchestration.decisions import (
    Accept,
    AskToStop,
    Decision,
    Dispatch,
    EndLease,
    FreeSlots,
    InsertCache,
    Proposed,
    Reject,
    TakeSlots,
    Wait,
    Write,
    holds_result,
)
from runlane_broker.orchestration.details import StateDetails
from runlane_broker.orchestration.facts import EnclosingFlow, Facts, Lease, TagLimit
from runlane_broker.orchestration.policies import MARK_LATE, MINIMAL_FLOW, MINIMAL_TASK, choose_policy
from runlane_broker.orchestration.rules import Policy
from runlane_broker.orchestration.runs import Retries, Run, RunKind

from .support import NOW, SECOND, S, after, written

PROPERTY = settings(max_examples=60, derandomize=True, deadline=None, database=None)

OPTIONAL_BOOL = st.sampled_from((None, True, False))
DATA = st.sampled_from((None, b"null", b'{"type":"unpersisted"}', b'{"type":"reference"}'))
TIME = st.none() | st.integers(NOW - 99 * SECOND, NOW + 99 * SECOND)
DETAILS = st.builds(
    StateDetails,
    scheduled_time=TIME,
    cache_key=st.sampled_from((None, "k", "k" * 2001)),
    deferred=st.booleans(),
    refresh_cache=OPTIONAL_BOOL,
    retriable=OPTIONAL_BOOL,
    transition_id=st.sampled_from((None, "x", "y")),
    pause_reschedule=st.booleans(),
)
PROPOSED = st.builds(
    Proposed,
    st.sampled_from(S),
    st.sampled_from(("", "", "Late", "AwaitingRetry", "Resuming", "Mine")),
    st.sampled_from((None, "why")),
    DATA,
    DETAILS,
)
FACTS = st.builds(
    Facts,
    lease=st.sampled_from((None, *Lease)),
    from_holder=st.booleans(),
    flow=st.none()
    | st.builds(EnclosingFlow, st.just("f"), st.sampled_from((None, S.RUNNING, *S)), st.integers(0, 3)),
    cached=st.sampled_from((None, Proposed(S.COMPLETED, data=b"1"))),
    limits=st.lists(
        st.builds(TagLimit, st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 2), st.booleans()),
        max_size=3,
        unique_by=lambda limit: (limit.tag, limit.is_global),
    ).map(tuple),
    random=st.floats(0, 1, exclude_max=True),
)
RUNS = st.builds(
    Run,
    st.just("run"),
    st.sampled_from((RunKind.TASK, RunKind.TASK, RunKind.FLOW)),
    st.none(),
    retries=st.builds(
        Retries, st.integers(0, 3), st.lists(st.floats(0, 99), max_size=3).map(tuple), st.floats(0, 2)
    ),
    flow_run_id=st.sampled_from((None, "f")),
    deployment_id=st.sampled_from((None, "d")),
    infrastructure_pid=st.sampled_from((None, "17")),
)
#: What is proposed, by force or not, with what is known, and so many microseconds after the step before.
Step: TypeAlias = tuple[Proposed, bool, Facts, int]
STEPS = st.lists(
    st.tuples(PROPOSED, st.booleans(), FACTS, st.integers(-SECOND, 9 * SECOND)), min_size=1, max_size=12
)


class Life:
    """A run through all the steps: what was decided, and how the run was before and after."""

    def __init__(self, run: Run, steps: list[Step]) -> None:
        self.run = run
        self.writes: list[Write] = []
        self.decided: list[tuple[Run, Proposed, Facts, Policy, int, Decision]] = []
        now = NOW
        for proposed, force, facts, passed in steps:
            now += passed
            policy = choose_policy(self.run, proposed, force=force)
            decision = decide(self.run, proposed, facts, policy, now)
            self.decided.append((self.run, proposed, facts, policy, now, decision))
            write = written(decision)
            if write is not None:
                self.run = after(self.run, write)
                self.writes.append(write)


@PROPERTY
@given(run=RUNS, steps=STEPS)
def test_a_refusal_changes_nothing(run: Run, steps: list[Step]) -> None:
    """And a state in place of another brings nothing that was meant for that one."""
    decided = Life(run, steps).decided
    for (before, _, _, _, _, decision), (later, *_) in pairwise(decided):
        if written(decision) is None:
            assert later == before
    for before, proposed, _, _, _, decision in decided:
        match decision:
            case Accept(write=write):
                assert write.state.type is proposed.type
                assert (write.state.message, write.state.data) == (proposed.message, proposed.data)
            case Reject(write=Write() as write):
                assert write.books.run_count == before.books.run_count
                assert write.books.flow_run_run_count == before.books.flow_run_run_count
                assert not any(isinstance(effect, TakeSlots | InsertCache) for effect in write.effects)
            case Wait(delay_seconds=seconds):
                assert seconds > 0
            case _:
                pass


@PROPERTY
@given(run=RUNS, steps=STEPS)
def test_what_has_ended_with_a_result_is_left_by_force_only(run: Run, steps: list[Step]) -> None:
    for before, _, _, policy, _, decision in Life(run, steps).decided:
        write = written(decision)
        if write is None or before.state is None or policy in (MINIMAL_TASK, MINIMAL_FLOW):
            continue
        if before.state.type is S.COMPLETED and before.state.has_result:
            assert write.state.type in FINAL
            assert before.kind is RunKind.FLOW or write.state.name == "Cached"


@PROPERTY
@given(run=RUNS, steps=STEPS)
def test_the_history_goes_forward_and_is_complete(run: Run, steps: list[Step]) -> None:
    life = Life(run, steps)
    assert all(one.timestamp < other.timestamp for one, other in pairwise(life.writes))
    for write in life.writes:
        state = write.state
        assert state.name
        assert (state.type is not S.SCHEDULED) or state.details.scheduled_time is not None
        ids = (state.details.flow_run_id, state.details.task_run_id)
        assert ids == (("run", None) if run.kind is RunKind.FLOW else (run.flow_run_id, "run"))


@PROPERTY
@given(run=RUNS, steps=STEPS)
def test_the_books_are_what_a_recount_of_the_history_gives(run: Run, steps: list[Step]) -> None:
    life = Life(run, steps)
    assume(life.writes)
    books, history = life.run.books, [(write.state.type, write.timestamp) for write in life.writes]
    spans = [later - since for (type_, since), (_, later) in pairwise(history) if type_ is S.RUNNING]
    assert books.total_run_time == sum(spans)

    begun = [timestamp for type_, timestamp in history if type_ is S.RUNNING or type_ in FINAL]
    assert books.start_time == (begun[0] if begun else None)
    last = [timestamp for type_, timestamp in reversed(history) if type_ in FINAL]
    unbroken = 0
    for type_, _ in reversed(history):
        if type_ not in FINAL:
            break
        unbroken += 1
    assert books.end_time == (last[unbroken - 1] if unbroken else None)

    first, newest = life.writes[0], life.writes[-1]
    planned = first.state.details.scheduled_time if first.state.type is S.SCHEDULED else first.timestamp
    assert books.expected_start_time == planned
    waiting = newest.state.type is S.SCHEDULED
    assert books.next_scheduled_start_time == (newest.state.details.scheduled_time if waiting else None)


@PROPERTY
@given(run=RUNS, steps=STEPS)
def test_the_run_count_rises_with_each_start_and_falls_only_when_a_run_begins_anew(
    run: Run, steps: list[Step]
) -> None:
    for before, _, _, policy, _, decision in Life(run, steps).decided:
        write = written(decision)
        if write is None:
            continue
        starts = write.state.type is S.RUNNING
        ended = before.state is not None and before.state.type in FINAL
        anew = ended and write.state.type not in FINAL
        if anew and before.kind is RunKind.TASK and policy is not MINIMAL_TASK and isinstance(decision, Accept):
            assert (write.books.run_count, write.books.failures) == (starts, 0)
        else:
            assert write.books.run_count == before.books.run_count + starts
            assert write.books.failures >= before.books.failures


@PROPERTY
@given(run=RUNS, steps=STEPS)
def test_effects_go_with_the_state_they_are_for(run: Run, steps: list[Step]) -> None:
    slots: set[str] = set()
    for before, _, facts, _, _, decision in Life(run, steps).decided:
        write = written(decision)
        if write is None:
            continue
        type_, held = write.state.type, facts.lease is not None
        for effect in write.effects:
            match effect:
                case TakeSlots(tags=tags):
                    assert type_ is S.RUNNING
                    assert sorted(tags) == sorted({limit.tag for limit in facts.limits})
                    slots |= set(tags)
                case FreeSlots():
                    slots.clear()
                case InsertCache(key=key):
                    assert type_ is S.COMPLETED
                    assert key == write.state.details.cache_key
                case Dispatch():
                    assert type_ is S.SCHEDULED
                    assert not held or EndLease() in write.effects
                case EndLease():
                    assert held
                    assert type_ not in (S.PENDING, S.RUNNING, S.CANCELLING)
                case AskToStop():
                    assert held
                    assert type_ is S.CANCELLING
                case _:
                    assert before.kind is RunKind.FLOW
        if type_ not in (S.RUNNING, S.CANCELLING):
            assert not slots


@PROPERTY
@given(run=RUNS, steps=STEPS, proposed=PROPOSED, facts=FACTS)
def test_only_what_is_scheduled_can_be_late(run: Run, steps: list[Step], proposed: Proposed, facts: Facts) -> None:
    life = Life(run, steps)
    late = Proposed(S.SCHEDULED, "Late", details=proposed.details)
    decision = decide(life.run, late, facts, MARK_LATE, NOW)
    current = life.run.state
    fits = current is None or (current.type is S.SCHEDULED and current.name != "Late")
    assert isinstance(decision, Accept) is fits


@PROPERTY
@given(run=RUNS, steps=STEPS)
def test_the_same_question_has_the_same_answer(run: Run, steps: list[Step]) -> None:
    life = Life(run, steps)
    for before, proposed, facts, policy, now, decision in life.decided:
        assert decide(before, proposed, facts, policy, now) == decision
    state = life.run.state
    assert state is None or state.has_result is holds_result(life.writes[-1].state.data)
