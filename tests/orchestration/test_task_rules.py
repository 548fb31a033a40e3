from __future__ import annotations

import pytest
from msgspec.structs import replace

from runlane.protocol.states import StateName
from runlane_broker.orchestration.common_rules import propose_late
from runlane_broker.orchestration.decide import decide
from runlane_broker.orchestration.decisions import (
    Abort,
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
from runlane_broker.orchestration.policies import (
    BACKGROUND_TASK,
    CORE_FLOW,
    CORE_TASK,
    MARK_LATE,
    MINIMAL_TASK,
)
from runlane_broker.orchestration.rules import Policy
from runlane_broker.orchestration.runs import Bookkeeping, Retries, Run, RunKind

from .support import DATA, NOW, RUNNING_FLOW, SECOND, S, Story, run_in, status, written

CORE_AND_BACKGROUND = pytest.mark.parametrize("policy", [CORE_TASK, BACKGROUND_TASK], ids=lambda p: p.name)


def due(run: Run, at: int | None) -> Run:
    """Return the run in the same state, which knows this scheduled time."""
    assert run.state is not None
    return replace(run, state=replace(run.state, details=StateDetails(scheduled_time=at)))


def accepted(decision: Decision) -> Write:
    assert isinstance(decision, Accept)
    return decision.write


# --- The ladder that was observed -----------------------------------------------------------------------------


def test_the_observed_ladder() -> None:
    """A run without a flow run, as a Prefect server was seen to treat it."""
    story = Story(run_in(None))

    def rung(proposed: S, expected: str, name: str, run_count: int, *, data: bytes | None = None) -> None:
        assert status(story.propose(Proposed(proposed, data=data))) == expected
        assert story.run.state is not None
        assert (story.run.state.name, story.run.books.run_count) == (name, run_count)

    rung(S.PENDING, "ACCEPT", "Pending", 0)
    rung(S.RUNNING, "ACCEPT", "Running", 1)
    started = story.run.books.start_time
    rung(S.RUNNING, "ACCEPT", "Rerunning", 2)
    rung(S.FAILED, "ACCEPT", "Failed", 2)
    assert story.run.books.end_time == story.now
    rung(S.CRASHED, "ABORT", "Failed", 2)
    rung(S.CANCELLING, "ABORT", "Failed", 2)
    rung(S.PENDING, "ACCEPT", "Pending", 0)
    assert (story.run.books.start_time, story.run.books.end_time) == (started, None)
    rung(S.RUNNING, "ACCEPT", "Running", 1)
    rung(S.COMPLETED, "ACCEPT", "Completed", 1, data=DATA)
    rung(S.RUNNING, "REJECT", "Completed", 1)
    rung(S.PENDING, "REJECT", "Completed", 1)
    rung(S.CANCELLED, "REJECT", "Completed", 1)
    assert status(story.propose(S.RUNNING, force=True)) == "ACCEPT"
    assert story.run.books.run_count == 2


def test_what_a_worker_reads_when_its_task_is_retried() -> None:
    """FAILED, then RUNNING too early, then RUNNING: as a worker of Prefect 2.20 reports over HTTP."""
    story = Story(run_in(S.RUNNING, retries=Retries(1, (2.0,), 0.0)), Facts(lease=Lease.PREFECT))
    failed = story.propose(Proposed(S.FAILED, message="boom", data=DATA))
    assert isinstance(failed, Reject)
    assert failed.reason == "Retrying"
    assert story.run.state is not None
    assert (story.run.state.type, story.run.state.name) == (S.SCHEDULED, "AwaitingRetry")
    assert story.run.books.next_scheduled_start_time == story.now + 2 * SECOND

    assert story.propose(S.RUNNING) == Wait("Scheduled time is in the future", 1)
    retried = story.propose(S.RUNNING)
    assert accepted(retried).state.name == StateName.RETRYING
    assert (story.run.books.run_count, story.run.books.failures) == (2, 1)
    assert accepted(story.propose(S.FAILED)).state.type is S.FAILED


# --- 1, 10: cached results ------------------------------------------------------------------------------------

CACHED = Proposed(S.COMPLETED, "Completed", "done", DATA, StateDetails(cache_key="k", task_run_id="another"))


@CORE_AND_BACKGROUND
@pytest.mark.parametrize("left", [None, *S])
def test_a_cached_result_takes_the_place_of_a_start(policy: Policy, left: S | None) -> None:
    if policy is BACKGROUND_TASK:
        facts = Facts(cached=CACHED, limits=(TagLimit("t", 0, 0),))
    else:
        facts = Facts(cached=CACHED, limits=(TagLimit("t", 0, 0),), flow=EnclosingFlow("f", S.FAILED, 1))
    asked = Proposed(S.RUNNING, details=StateDetails(cache_key="k"))
    decision = decide(run_in(left), asked, facts, policy, NOW)
    assert isinstance(decision, Reject)
    assert decision.reason == "Retrieved state from cache"
    assert decision.write is not None
    state = decision.write.state
    assert (state.type, state.name, state.message, state.data) == (S.COMPLETED, "Cached", "done", DATA)
    assert (state.details.cache_key, state.details.task_run_id) == ("k", "run")
    assert not any(isinstance(effect, InsertCache) for effect in decision.write.effects)


@pytest.mark.parametrize(
    "details", [StateDetails(), StateDetails(cache_key=""), StateDetails(cache_key="k", refresh_cache=True)]
)
def test_nothing_is_taken_from_the_cache_that_was_not_asked_for(details: StateDetails) -> None:
    decision = decide(
        run_in(S.PENDING), Proposed(S.RUNNING, details=details), Facts(cached=CACHED), CORE_TASK, NOW
    )
    assert accepted(decision).state.type is S.RUNNING


@CORE_AND_BACKGROUND
def test_a_completed_state_with_a_key_goes_into_the_cache(policy: Policy) -> None:
    details = StateDetails(cache_key="k" * 2000, cache_expiration=NOW + 5)
    decision = decide(run_in(S.RUNNING), Proposed(S.COMPLETED, details=details), Facts(), policy, NOW)
    assert InsertCache("k" * 2000, NOW + 5) in accepted(decision).effects


@CORE_AND_BACKGROUND
def test_one_with_too_long_a_key_is_written_and_said_to_be_rejected(policy: Policy) -> None:
    asked = Proposed(S.COMPLETED, data=DATA, details=StateDetails(cache_key="k" * 2001))
    decision = decide(run_in(S.RUNNING), asked, Facts(), policy, NOW)
    assert isinstance(decision, Reject)
    assert decision.reason == "Cache key exceeded maximum allowed length of 2000 characters."
    assert decision.write is not None
    assert (decision.write.state.type, decision.write.state.data) == (S.COMPLETED, DATA)
    assert decision.write.effects == (FreeSlots(),)


def test_by_force_nothing_goes_into_the_cache() -> None:
    asked = Proposed(S.COMPLETED, details=StateDetails(cache_key="k"))
    assert accepted(decide(run_in(S.RUNNING), asked, Facts(), MINIMAL_TASK, NOW)).effects == (FreeSlots(),)


# --- 2: ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [S.COMPLETED, S.FAILED, S.CRASHED, S.CANCELLED])
@pytest.mark.parametrize("proposed", [S.CANCELLING, S.PAUSED, S.CRASHED])
@CORE_AND_BACKGROUND
def test_what_has_ended_cannot_be_stopped(policy: Policy, left: S, proposed: S) -> None:
    run = run_in(left, has_result=left is S.COMPLETED)
    assert decide(run, Proposed(proposed), Facts(), policy, NOW) == Abort(f"Run is already {left}.")


@CORE_AND_BACKGROUND
def test_a_result_is_protected(policy: Policy) -> None:
    run = run_in(S.COMPLETED, has_result=True)
    assert decide(run, Proposed(S.FAILED), Facts(), policy, NOW) == Reject("This run is already completed.")


@CORE_AND_BACKGROUND
def test_what_has_completed_is_not_cancelled_afterwards(policy: Policy) -> None:
    asked = Proposed(S.CANCELLED)
    assert decide(run_in(S.COMPLETED), asked, Facts(), policy, NOW) == Reject("This run is already completed.")
    assert accepted(decide(run_in(S.COMPLETED), asked, Facts(), MINIMAL_TASK, NOW)).state.type is S.CANCELLED


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (None, False),
        (b"null", False),
        (b'{"type":"unpersisted"}', False),
        (b'{"type":"unpersisted","x":1}', False),
        (b'{"type":"reference"}', True),
        (b'{"type":null}', True),
        (b'{"value":1}', True),
        (b"5", True),
        (b'"unpersisted"', True),
    ],
)
def test_what_counts_as_a_result(data: bytes | None, kept: bool) -> None:
    assert holds_result(data) is kept


@pytest.mark.parametrize(("tracked", "name"), [(1, "Retrying"), (2, "Running"), (3, "Running")])
def test_a_run_that_begins_anew_in_a_retried_flow_is_called_so(tracked: int, name: str) -> None:
    run = run_in(S.FAILED, flow_run_id="f", books=Bookkeeping(run_count=3, failures=3, flow_run_run_count=tracked))
    facts = Facts(flow=EnclosingFlow("f", S.RUNNING, run_count=2))
    write = accepted(decide(run, Proposed(S.RUNNING), facts, CORE_TASK, NOW))
    assert write.state.name == name
    assert (write.books.run_count, write.books.failures, write.books.flow_run_run_count) == (1, 0, 2)


# --- 3, 9: the flow run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow_state", [None, *(S)])
def test_a_task_of_a_flow_starts_only_while_the_flow_runs(flow_state: S | None) -> None:
    flow = EnclosingFlow("f", flow_state, 1, pause_timeout=NOW + 9, pause_reschedule=True)
    decision = decide(run_in(S.PENDING, flow_run_id="f"), Proposed(S.RUNNING), Facts(flow=flow), CORE_TASK, NOW)
    if flow_state is S.RUNNING:
        assert accepted(decision).state.type is S.RUNNING
    elif flow_state is S.PAUSED:
        assert isinstance(decision, Reject)
        assert decision.reason == "The flow is paused, new tasks can execute after resuming flow run: f."
        assert decision.write is not None
        state = decision.write.state
        assert (state.type, state.name) == (S.PAUSED, "NotReady")
        assert (state.details.pause_timeout, state.details.pause_reschedule) == (NOW + 9, True)
    else:
        assert decision == Abort("The enclosing flow must be running to begin task execution.")


def test_a_deferred_task_does_not_need_its_flow() -> None:
    flow = EnclosingFlow("f", S.COMPLETED, run_count=4)
    write = accepted(decide(run_in(S.PENDING), Proposed(S.RUNNING), Facts(flow=flow), BACKGROUND_TASK, NOW))
    assert write.books.flow_run_run_count == 4


def test_what_an_earlier_rule_has_changed_is_dropped_with_the_state_it_was_for() -> None:
    """The run count is reset for a new start; a pause is none."""
    run = run_in(S.FAILED, run_count=3)
    decision = decide(run, Proposed(S.RUNNING), Facts(flow=EnclosingFlow("f", S.PAUSED, 1)), CORE_TASK, NOW)
    assert isinstance(decision, Reject)
    assert decision.write is not None
    assert decision.write.books.run_count == 3


# --- 4, 11: concurrency slots ---------------------------------------------------------------------------------


def start(
    *limits: TagLimit, policy: Policy = CORE_TASK, random: float = 0.0, scheduled: int | None = None
) -> Decision:
    run = due(run_in(S.PENDING), scheduled)
    return decide(run, Proposed(S.RUNNING), Facts(limits=limits, random=random), policy, NOW)


def test_a_start_takes_a_slot_of_each_limited_tag() -> None:
    decision = start(TagLimit("a", 2, 1), TagLimit("b", 1, 0), TagLimit("c", 5, 0, is_global=True))
    assert accepted(decision).effects == (TakeSlots(("c", "a", "b")),)


def test_without_limits_there_is_nothing_to_take() -> None:
    assert accepted(start()).effects == ()


def test_a_full_limit_makes_wait() -> None:
    decision = start(TagLimit("a", 2, 1), TagLimit("b", 1, 1))
    assert decision == Wait("Concurrency limit for the b tag has been reached", 10)


@pytest.mark.parametrize("is_global", [True, False])
def test_a_limit_of_0_aborts_even_where_another_one_is_full(is_global: bool) -> None:
    decision = start(TagLimit("a", 1, 1), TagLimit("t", 0, 0, is_global=is_global))
    assert decision == Abort(
        'The concurrency limit on tag "t" is 0 and will deadlock if the task tries to run again.'
    )


@pytest.mark.parametrize(
    ("average", "random", "seconds"),
    [(None, 0.0, 5), (None, 0.999, 10), (4.0, 0.0, 2), (4.0, 0.999, 4), (99.0, 0.999, 10), (0.01, 0.0, 1)],
)
def test_a_full_global_limit_makes_wait_as_long_as_its_slots_are_held(
    average: float | None, random: float, seconds: int
) -> None:
    decision = start(
        TagLimit("a", 1, 1, is_global=True, average_seconds=average),
        TagLimit("b", 2, 0, is_global=True),
        random=random,
    )
    assert decision == Wait("Concurrency limit reached for tags: a, b", seconds)


def test_a_global_limit_stands_for_the_tags_own() -> None:
    decision = start(TagLimit("a", 1, 1), TagLimit("a", 3, 1, is_global=True))
    assert accepted(decision).effects == (TakeSlots(("a",)),)


@pytest.mark.parametrize("policy", [BACKGROUND_TASK, MINIMAL_TASK], ids=lambda p: p.name)
def test_limits_are_not_for_background_runs_nor_for_force(policy: Policy) -> None:
    assert accepted(start(TagLimit("a", 0, 0), TagLimit("b", 1, 1), policy=policy)).effects == ()


def test_a_run_that_is_not_due_takes_no_slot() -> None:
    assert isinstance(start(TagLimit("a", 2, 1), scheduled=NOW + 9 * SECOND), Wait)


@pytest.mark.parametrize("policy", [CORE_TASK, BACKGROUND_TASK, MINIMAL_TASK], ids=lambda p: p.name)
@pytest.mark.parametrize("left", list(S))
def test_slots_are_held_while_the_run_runs_or_is_being_stopped(policy: Policy, left: S) -> None:
    for entered in S:
        write = written(decide(run_in(left), Proposed(entered), Facts(), policy, NOW))
        if write is not None:
            frees = left in (S.RUNNING, S.CANCELLING) and entered not in (S.RUNNING, S.CANCELLING)
            assert (FreeSlots() in write.effects) is frees


# --- 5, 6: times ----------------------------------------------------------------------------------------------


@CORE_AND_BACKGROUND
@pytest.mark.parametrize(("own", "kept"), [(None, NOW - 5), (NOW + 7, NOW + 7)])
def test_pending_remembers_when_it_was_scheduled(policy: Policy, own: int | None, kept: int) -> None:
    asked = Proposed(S.PENDING, details=StateDetails(scheduled_time=own))
    decision = decide(due(run_in(S.SCHEDULED), NOW - 5), asked, Facts(), policy, NOW)
    assert accepted(decision).state.details.scheduled_time == kept


@CORE_AND_BACKGROUND
@pytest.mark.parametrize("left", [S.SCHEDULED, S.PENDING])
@pytest.mark.parametrize(
    ("ahead", "seconds"),
    [
        (-5_000_000, 0),
        (0, 0),
        (1, 0),
        (500_000, 0),
        (500_001, 1),
        (1_000_000, 1),
        (1_500_000, 1),
        (1_500_001, 2),
        (86_400_000_000, 86_400),
    ],
)
def test_a_run_does_not_start_before_it_is_due(policy: Policy, left: S, ahead: int, seconds: int) -> None:
    decision = decide(due(run_in(left), NOW + ahead), Proposed(S.RUNNING), Facts(), policy, NOW)
    if seconds:
        assert decision == Wait("Scheduled time is in the future", seconds)
    else:
        assert accepted(decision).state.name == "Running"


def test_by_force_it_does() -> None:
    run = due(run_in(S.SCHEDULED), NOW + 99 * SECOND)
    assert accepted(decide(run, Proposed(S.RUNNING), Facts(), MINIMAL_TASK, NOW)).state.type is S.RUNNING


@pytest.mark.parametrize("left", [None, *S])
def test_scheduled_without_a_time_is_scheduled_now(left: S | None) -> None:
    write = accepted(decide(run_in(left), Proposed(S.SCHEDULED), Facts(), MINIMAL_TASK, NOW))
    assert write.state.details.scheduled_time == NOW


@pytest.mark.parametrize(("since", "timestamp"), [(NOW - 1, NOW), (NOW, NOW + 1), (NOW + 99, NOW + 100)])
def test_a_state_is_later_than_the_one_before_though_the_clock_was_set_back(since: int, timestamp: int) -> None:
    run = run_in(S.PENDING)
    assert run.state is not None
    run = replace(run, state=replace(run.state, timestamp=since))
    assert accepted(decide(run, Proposed(S.RUNNING), Facts(), CORE_TASK, NOW)).timestamp == timestamp


# --- 7, 8: retries --------------------------------------------------------------------------------------------


def fail(run: Run, facts: Facts, policy: Policy, **details: bool) -> Decision:
    asked = Proposed(S.FAILED, message="boom", data=DATA, details=StateDetails(**details))
    return decide(run, asked, facts, policy, NOW)


@CORE_AND_BACKGROUND
@pytest.mark.parametrize("lease", [None, *Lease])
@pytest.mark.parametrize(
    ("starts", "limit", "seconds"),
    [(1, 0, None), (1, 1, 10), (2, 1, None), (2, 2, 60), (3, 9, 60), (0, 1, 10)],
)
def test_a_failure_is_retried_while_retries_are_left(
    policy: Policy, lease: Lease | None, starts: int, limit: int, seconds: int | None
) -> None:
    books = Bookkeeping(run_count=starts, failures=max(starts - 1, 0))
    run = run_in(S.RUNNING, books=books, retries=Retries(limit, (10.0, 60.0), 0.0))
    decision = fail(run, Facts(lease=lease), policy)
    if seconds is None:
        assert accepted(decision).state.type is S.FAILED
        return
    assert isinstance(decision, Reject)
    assert decision.reason == "Retrying"
    assert decision.write is not None
    state = decision.write.state
    assert (state.type, state.name, state.message, state.data) == (S.SCHEDULED, "AwaitingRetry", "boom", DATA)
    assert state.details.scheduled_time == NOW + seconds * SECOND
    assert decision.write.books.next_scheduled_start_time == NOW + seconds * SECOND
    assert decision.write.books.failures == books.failures + 1


@CORE_AND_BACKGROUND
@pytest.mark.parametrize(("retriable", "retried"), [(False, False), (True, True)])
def test_a_failure_may_say_that_it_is_not_retriable(policy: Policy, retriable: bool, retried: bool) -> None:
    run = run_in(S.RUNNING, retries=Retries(3, (), 0.0))
    assert isinstance(fail(run, Facts(), policy, retriable=retriable), Reject) is retried


@pytest.mark.parametrize("left", [None, *(S)])
def test_only_what_was_running_is_retried(left: S | None) -> None:
    decision = fail(run_in(left, retries=Retries(3, (), 0.0)), Facts(), CORE_TASK)
    assert isinstance(decision, Reject) is (left is S.RUNNING)


def test_by_force_nothing_is_retried() -> None:
    decision = fail(run_in(S.RUNNING, retries=Retries(3, (), 0.0)), Facts(), MINIMAL_TASK)
    assert accepted(decision).books.failures == 1


def test_a_lost_worker_costs_no_retry() -> None:
    """What was handed out three times, and lost twice, has not failed yet."""
    books = Bookkeeping(run_count=3, failures=0)
    run = run_in(S.RUNNING, books=books, retries=Retries(1, (), 0.0))
    assert isinstance(fail(run, Facts(lease=Lease.PREFECT), BACKGROUND_TASK), Reject)
    assert isinstance(fail(run, Facts(), BACKGROUND_TASK), Accept)


def test_jitter_stretches_the_delay() -> None:
    run = run_in(S.RUNNING, retries=Retries(1, (10.0,), 0.5))
    decision = fail(run, Facts(random=0.5), CORE_TASK)
    assert isinstance(decision, Reject)
    assert decision.write is not None
    assert decision.write.state.details.scheduled_time == NOW + round(12.5 * SECOND)


def test_a_retry_keeps_what_its_worker_needs_to_find() -> None:
    run = run_in(S.PENDING, retries=Retries(1, (), 0.0))
    assert run.state is not None
    details = StateDetails(task_parameters_id="p", traceparent="t", cache_key="not this")
    story = Story(replace(run, state=replace(run.state, details=details)))
    story.propose(S.RUNNING)
    assert story.run.state is not None
    assert story.run.state.details.task_parameters_id == "p"
    story.propose(S.FAILED)
    assert story.run.state.details == StateDetails(
        task_run_id="run", task_parameters_id="p", scheduled_time=story.now
    )


@CORE_AND_BACKGROUND
@pytest.mark.parametrize(
    ("left", "name", "run_count", "expected"),
    [
        (S.SCHEDULED, "AwaitingRetry", 1, "Retrying"),
        (S.SCHEDULED, "Scheduled", 1, "Rerunning"),
        (S.SCHEDULED, "AwaitingRetry", 0, "Mine"),
        (S.PENDING, "Pending", 2, "Rerunning"),
        (S.PENDING, "Pending", 0, "Mine"),
        (S.RUNNING, "Running", 1, "Rerunning"),
    ],
)
def test_a_start_that_is_not_the_first_is_named(
    policy: Policy, left: S, name: str, run_count: int, expected: str
) -> None:
    run = run_in(left, name=name, run_count=run_count)
    write = accepted(decide(run, Proposed(S.RUNNING, "Mine"), Facts(), policy, NOW))
    assert (write.state.name, write.books.run_count) == (expected, run_count + 1)


# --- Background runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [S.PENDING, S.RUNNING, S.CANCELLING, S.CANCELLED])
def test_a_run_is_not_pending_twice(left: S) -> None:
    decision = decide(run_in(left), Proposed(S.PENDING), Facts(), BACKGROUND_TASK, NOW)
    assert decision == Abort(f"This run is in a {left} state and cannot transition to a PENDING state.")


@pytest.mark.parametrize(
    ("current", "proposed", "accepts"),
    [
        ("Pending", "Submitting", True),
        ("Submitting", "InfrastructurePending", True),
        ("Submitting", "Submitting", False),
        ("Submitting", "Pending", False),
        ("Submitting", "", False),
    ],
)
@pytest.mark.parametrize("policy", [BACKGROUND_TASK, CORE_FLOW], ids=lambda p: p.name)
def test_but_may_get_on_within_pending(policy: Policy, current: str, proposed: str, accepts: bool) -> None:
    kind = RunKind.FLOW if policy is CORE_FLOW else RunKind.TASK
    run = due(run_in(S.PENDING, name=current, kind=kind), NOW - 7)
    decision = decide(run, Proposed(S.PENDING, proposed), Facts(), policy, NOW)
    assert isinstance(decision, Accept) is accepts
    write = written(decision)
    assert write is None or write.state.details.scheduled_time == NOW - 7


def test_the_worker_that_was_sent_the_run_says_pending_once() -> None:
    """The lease has made it PENDING already. A second worker that says so has got it from somewhere else."""
    story = Story(due(run_in(S.PENDING), NOW - 7), Facts(lease=Lease.PREFECT_SENT))
    assert accepted(story.propose(S.PENDING)).effects == ()
    story.facts = Facts(lease=Lease.PREFECT)
    assert isinstance(story.propose(S.PENDING), Abort)


@pytest.mark.parametrize("left", [S.SCHEDULED, S.PENDING])
@pytest.mark.parametrize("entered", [S.PENDING, S.RUNNING])
@pytest.mark.parametrize(("own", "kept"), [(None, "p"), ("q", "q")])
def test_the_parameters_go_along(left: S, entered: S, own: str | None, kept: str) -> None:
    run = run_in(left)
    assert run.state is not None
    run = replace(run, state=replace(run.state, details=StateDetails(task_parameters_id="p")))
    asked = Proposed(entered, "Other", details=StateDetails(task_parameters_id=own))
    assert accepted(decide(run, asked, Facts(), BACKGROUND_TASK, NOW)).state.details.task_parameters_id == kept


# --- Dispatch and leases --------------------------------------------------------------------------------------

END, STOP, FIRST, AGAIN = EndLease(), AskToStop(), Dispatch(retry_lane=False), Dispatch(retry_lane=True)


@pytest.mark.parametrize(
    ("lease", "proposed", "effects"),
    [
        (None, S.SCHEDULED, {FIRST}),
        (None, S.COMPLETED, set()),
        *((lease, S.SCHEDULED, {END, AGAIN}) for lease in Lease),
        *((lease, S.PENDING, set()) for lease in Lease),
        *((lease, S.RUNNING, set()) for lease in Lease),
        *((lease, S.PAUSED, {END}) for lease in Lease),
        *((lease, S.CANCELLING, {STOP}) for lease in Lease),
        *((lease, S.COMPLETED, {END}) for lease in Lease),
        *((lease, S.FAILED, {END}) for lease in Lease),
        *((lease, S.CRASHED, {END}) for lease in Lease),
        *((lease, S.CANCELLED, {END}) for lease in Lease),
    ],
)
@pytest.mark.parametrize("policy", [CORE_TASK, BACKGROUND_TASK, MINIMAL_TASK], ids=lambda p: p.name)
@pytest.mark.parametrize("left", [S.PENDING, S.RUNNING])
def test_what_a_state_means_for_a_lease(
    policy: Policy, left: S, lease: Lease | None, proposed: S, effects: set[object]
) -> None:
    write = written(decide(run_in(left), Proposed(proposed), Facts(lease=lease), policy, NOW))
    if write is not None:  # a second PENDING
        assert {*write.effects} - {FreeSlots()} == effects


@pytest.mark.parametrize(
    ("lease", "effects"),
    [(None, set()), (Lease.PREFECT_SENT, set()), (Lease.PREFECT, set()), (Lease.RUNLANE, {END, AGAIN})],
)
@CORE_AND_BACKGROUND
def test_whoever_reports_a_failure_over_http_retries_it_but_a_worker_of_ours(
    policy: Policy, lease: Lease | None, effects: set[object]
) -> None:
    write = written(fail(run_in(S.RUNNING, retries=Retries(1, (), 0.0)), Facts(lease=lease), policy))
    assert write is not None
    assert {*write.effects} - {FreeSlots()} == effects


@pytest.mark.parametrize(
    ("lease", "from_holder", "name", "effects"),
    [
        (Lease.PREFECT, True, "AwaitingRetry", set()),
        (Lease.PREFECT, True, "Scheduled", {END, AGAIN}),
        (Lease.PREFECT, False, "AwaitingRetry", {END, AGAIN}),
        (Lease.RUNLANE, True, "AwaitingRetry", {END, AGAIN}),
        (None, False, "AwaitingRetry", {AGAIN}),
    ],
)
def test_a_holder_that_says_so_waits_for_its_retry(
    lease: Lease | None, from_holder: bool, name: str, effects: set[object]
) -> None:
    facts = Facts(lease=lease, from_holder=from_holder)
    write = accepted(decide(run_in(S.RUNNING), Proposed(S.SCHEDULED, name), facts, BACKGROUND_TASK, NOW))
    assert {*write.effects} - {FreeSlots()} == effects


@pytest.mark.parametrize(
    ("flow_run_id", "deferred", "name", "effects"),
    [
        (None, False, "", (FIRST,)),
        (None, True, "", (FIRST,)),
        (None, False, "AwaitingRetry", (AGAIN,)),
        ("f", True, "", (FIRST,)),
        ("f", True, "AwaitingRetry", (AGAIN,)),
        ("f", False, "", ()),
        ("f", False, "AwaitingRetry", ()),
    ],
)
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("left", [None, S.SCHEDULED, S.FAILED])
def test_runs_without_a_flow_and_deferred_ones_are_handed_out(
    left: S | None, force: bool, flow_run_id: str | None, deferred: bool, name: str, effects: tuple[object, ...]
) -> None:
    story = Story(run_in(left, flow_run_id=flow_run_id), Facts(flow=RUNNING_FLOW if flow_run_id else None))
    decision = story.propose(Proposed(S.SCHEDULED, name, details=StateDetails(deferred=deferred)), force=force)
    assert accepted(decision).effects == effects


# --- Cancelling what nobody holds ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [CORE_TASK, BACKGROUND_TASK, MINIMAL_TASK], ids=lambda p: p.name)
@pytest.mark.parametrize("left", [S.SCHEDULED, S.PENDING, S.PAUSED])
def test_what_waits_and_is_leased_to_nobody_is_cancelled_at_once(policy: Policy, left: S) -> None:
    asked = Proposed(S.CANCELLING, message="enough")
    write = written(decide(run_in(left), asked, Facts(), policy, NOW))
    assert write is not None
    assert (write.state.type, write.state.message) == (S.CANCELLED, "enough")
    assert write.books.end_time is not None
    for lease in Lease:
        assert accepted(decide(run_in(left), asked, Facts(lease=lease), policy, NOW)).state.type is S.CANCELLING


@pytest.mark.parametrize("policy", [CORE_TASK, BACKGROUND_TASK, MINIMAL_TASK], ids=lambda p: p.name)
def test_what_runs_without_a_lease_is_cancelled_by_whoever_runs_it(policy: Policy) -> None:
    write = accepted(decide(run_in(S.RUNNING), Proposed(S.CANCELLING), Facts(), policy, NOW))
    assert write.state.type is S.CANCELLING
    assert write.effects == ()


@CORE_AND_BACKGROUND
@pytest.mark.parametrize("lease", [None, *Lease])
def test_what_is_being_cancelled_is_not_cancelled_again(policy: Policy, lease: Lease | None) -> None:
    decision = decide(run_in(S.CANCELLING), Proposed(S.CANCELLING), Facts(lease=lease), policy, NOW)
    assert decision == Reject("The run is being cancelled already.")


# --- Cancelling a Prefect worker's run ---------------------------------------------------------------------------


@CORE_AND_BACKGROUND
@pytest.mark.parametrize("lease", [Lease.PREFECT_SENT, Lease.PREFECT])
@pytest.mark.parametrize("proposed", [S.PENDING, S.RUNNING, S.FAILED])
def test_a_prefect_worker_hears_of_the_cancel_when_it_asks(policy: Policy, lease: Lease, proposed: S) -> None:
    run = run_in(S.CANCELLING, retries=Retries(3, (), 0.0))
    decision = decide(run, Proposed(proposed, message="m"), Facts(lease=lease, cached=CACHED), policy, NOW)
    assert isinstance(decision, Reject)
    assert decision.reason == "The run was being cancelled."
    assert decision.write is not None
    assert decision.write.state.type is S.CANCELLED
    assert decision.write.state.message == "m"
    assert decision.write.effects == (FreeSlots(), END)


@CORE_AND_BACKGROUND
@pytest.mark.parametrize("lease", list(Lease))
@pytest.mark.parametrize("proposed", [S.COMPLETED, S.CRASHED, S.CANCELLED])
def test_but_the_truth_wins(policy: Policy, lease: Lease, proposed: S) -> None:
    write = accepted(decide(run_in(S.CANCELLING), Proposed(proposed), Facts(lease=lease), policy, NOW))
    assert (write.state.type, write.effects) == (proposed, (FreeSlots(), END))


@pytest.mark.parametrize("lease", [None, Lease.RUNLANE])
def test_others_that_are_being_cancelled_fail_as_they_say(lease: Lease | None) -> None:
    decision = decide(run_in(S.CANCELLING), Proposed(S.FAILED), Facts(lease=lease), BACKGROUND_TASK, NOW)
    assert accepted(decision).state.type is S.FAILED


# --- Late runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(RunKind))
def test_a_late_run_is_marked_and_stays_due_and_where_it_is(kind: RunKind) -> None:
    story = Story(run_in(None, kind=kind))
    details = StateDetails(scheduled_time=NOW - 99, deferred=True, task_parameters_id="p", transition_id="x")
    story.propose(Proposed(S.SCHEDULED, details=details))
    before = story.run.books
    write = accepted(story.propose(propose_late(story.run), policy=MARK_LATE))
    assert (write.state.type, write.state.name, write.effects) == (S.SCHEDULED, "Late", ())
    assert write.books == before
    assert write.state.details.task_parameters_id == "p"
    assert write.state.details.transition_id is None

    again = story.propose(propose_late(story.run), policy=MARK_LATE)
    what = "flow" if kind is RunKind.FLOW else "task"
    assert again == Reject(f"This {what} run is already marked late.")


@pytest.mark.parametrize("left", sorted(set(S) - {S.SCHEDULED}))
@pytest.mark.parametrize(("kind", "runs"), [(RunKind.FLOW, "flows"), (RunKind.TASK, "task runs")])
def test_what_is_not_scheduled_any_more_is_not_late(kind: RunKind, runs: str, left: S) -> None:
    run = run_in(left, kind=kind)
    assert decide(run, propose_late(run), Facts(), MARK_LATE, NOW) == Reject(
        f"Only scheduled {runs} can be marked late."
    )
