from __future__ import annotations

import pytest
from msgspec.structs import replace

from runlane_broker.orchestration.decide import decide
from runlane_broker.orchestration.decisions import (
    Abort,
    Accept,
    Decision,
    Proposed,
    Reject,
    SetRetryType,
    Wait,
    Write,
)
from runlane_broker.orchestration.details import StateDetails
from runlane_broker.orchestration.facts import Facts
from runlane_broker.orchestration.policies import CORE_FLOW, MINIMAL_FLOW
from runlane_broker.orchestration.rules import Policy
from runlane_broker.orchestration.runs import Bookkeeping, Retries, Run, RunKind

from .support import DATA, NOW, SECOND, S, run_in, written


def flow_in(state: S | None, *, details: StateDetails | None = None, **fields: object) -> Run:
    run = run_in(state, kind=RunKind.FLOW, **fields)
    if details is None or run.state is None:
        return run
    return replace(run, state=replace(run.state, details=details))


def propose(run: Run, proposed: Proposed | S, policy: Policy = CORE_FLOW, *, random: float = 0.0) -> Decision:
    asked = proposed if isinstance(proposed, Proposed) else Proposed(proposed)
    return decide(run, asked, Facts(random=random), policy, NOW)


def accepted(decision: Decision) -> Write:
    assert isinstance(decision, Accept)
    return decision.write


# --- The same request twice -----------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [*S])
def test_a_transition_that_was_made_already_is_not_made_again(left: S) -> None:
    run = flow_in(left, details=StateDetails(transition_id="x"))
    for proposed in S:
        decision = propose(run, Proposed(proposed, details=StateDetails(transition_id="x")))
        assert decision == Reject("This run has already made this state transition.")


@pytest.mark.parametrize(("made", "asked"), [(None, None), ("x", None), (None, "x"), ("x", "y"), ("", "")])
@pytest.mark.parametrize("policy", [CORE_FLOW, MINIMAL_FLOW], ids=lambda p: p.name)
def test_other_ids_and_none_are_other_transitions(policy: Policy, made: str | None, asked: str | None) -> None:
    run = flow_in(S.PENDING, details=StateDetails(transition_id=made))
    write = accepted(propose(run, Proposed(S.RUNNING, details=StateDetails(transition_id=asked)), policy))
    assert write.state.details.transition_id == asked


def test_by_force_it_is_made_again() -> None:
    details = StateDetails(transition_id="x")
    assert accepted(
        propose(flow_in(S.RUNNING, details=details), Proposed(S.RUNNING, details=details), MINIMAL_FLOW)
    )


# --- Ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [S.COMPLETED, S.FAILED, S.CRASHED, S.CANCELLED])
@pytest.mark.parametrize("proposed", [S.CANCELLING, S.PAUSED, S.CRASHED])
def test_what_has_ended_cannot_be_stopped(left: S, proposed: S) -> None:
    assert propose(flow_in(left), proposed) == Abort(f"Run is already in terminal state {left}.")


@pytest.mark.parametrize("proposed", [S.SCHEDULED, S.PENDING, S.RUNNING])
def test_a_completed_run_with_a_result_does_not_begin_anew(proposed: S) -> None:
    run = flow_in(S.COMPLETED, has_result=True, deployment_id="d")
    assert propose(run, proposed) == Reject("Run is already COMPLETED.")


@pytest.mark.parametrize("policy", [CORE_FLOW, MINIMAL_FLOW], ids=lambda p: p.name)
@pytest.mark.parametrize(
    ("had", "data", "kept"), [(True, None, True), (True, DATA, False), (False, None, False), (False, DATA, False)]
)
def test_a_result_is_not_overwritten_by_none(policy: Policy, had: bool, data: bytes | None, kept: bool) -> None:
    decision = propose(flow_in(S.COMPLETED, has_result=had), Proposed(S.COMPLETED, data=data), policy)
    if kept:
        assert decision == Reject(
            "Cannot overwrite a COMPLETED state that carries persisted result data with one that does not."
        )
    else:
        assert accepted(decision).state.data == data


@pytest.mark.parametrize("left", [S.COMPLETED, S.FAILED, S.CRASHED, S.CANCELLED])
def test_a_run_is_scheduled_anew_where_a_deployment_can_start_it(left: S) -> None:
    refused = propose(flow_in(left), S.SCHEDULED)
    assert refused == Abort("Cannot reschedule a run without an associated deployment.")
    write = accepted(propose(flow_in(left, deployment_id="d"), S.SCHEDULED))
    assert write.effects == (SetRetryType("reschedule"),)
    assert accepted(propose(flow_in(left), S.RUNNING)).effects == (SetRetryType(None),)


# --- Cancelling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proposed", sorted(set(S) - {S.CANCELLED}))
def test_what_is_being_cancelled_ends_cancelled(proposed: S) -> None:
    assert propose(flow_in(S.CANCELLING), proposed) == Reject(
        "Cannot transition flows that are cancelling to a state other than Cancelled."
    )


@pytest.mark.parametrize("policy", [CORE_FLOW, MINIMAL_FLOW], ids=lambda p: p.name)
@pytest.mark.parametrize(
    ("left", "name", "pid", "suspended", "what"),
    [
        (S.SCHEDULED, "Scheduled", None, False, "Scheduled"),
        (S.SCHEDULED, "Late", "", False, "Scheduled"),
        (S.SCHEDULED, "AwaitingRetry", "17", False, None),
        (S.SCHEDULED, "Resuming", "17", False, "Scheduled"),
        (S.PAUSED, "Suspended", "17", True, "Suspended"),
        (S.PAUSED, "Paused", None, False, None),
    ],
)
def test_where_nothing_runs_a_run_is_cancelled_at_once(
    policy: Policy, left: S, name: str, pid: str | None, suspended: bool, what: str | None
) -> None:
    details = StateDetails(pause_reschedule=suspended)
    decision = propose(flow_in(left, name=name, infrastructure_pid=pid, details=details), S.CANCELLING, policy)
    write = written(decision)
    assert write is not None
    if what is None:
        assert isinstance(decision, Accept)
        assert write.state.type is S.CANCELLING
    else:
        assert isinstance(decision, Reject)
        assert decision.reason == f"{what} flow run has no infrastructure to terminate."
        assert (write.state.type, write.state.name) == (S.CANCELLED, "Cancelled")
        assert write.books.end_time == NOW


# --- Times and retries ----------------------------------------------------------------------------------------


def test_a_run_waits_for_its_time_and_pending_remembers_it() -> None:
    details = StateDetails(scheduled_time=NOW + 3 * SECOND)
    run = flow_in(S.SCHEDULED, details=details)
    assert propose(run, S.RUNNING) == Wait("Scheduled time is in the future", 3)
    assert accepted(propose(run, S.PENDING)).state.details == replace(details, flow_run_id="run")
    assert accepted(propose(run, S.RUNNING, MINIMAL_FLOW)).state.details.scheduled_time is None


@pytest.mark.parametrize(("starts", "limit", "seconds"), [(1, 0, None), (1, 1, 10), (2, 1, None), (2, 2, 60)])
def test_a_failure_is_retried_while_retries_are_left(starts: int, limit: int, seconds: int | None) -> None:
    run = flow_in(
        S.RUNNING,
        books=Bookkeeping(run_count=starts),
        retries=Retries(limit, (10.0, 60.0), 0.0),
        details=StateDetails(deployment_concurrency_lease_id="l"),
    )
    decision = propose(run, Proposed(S.FAILED, message="boom", data=DATA))
    if seconds is None:
        assert accepted(decision).effects == (SetRetryType(None),)
        return
    assert isinstance(decision, Reject)
    assert decision.reason == "Retrying"
    assert decision.write is not None
    assert decision.write.effects == (SetRetryType("in_process"),)
    state = decision.write.state
    assert (state.type, state.name, state.message, state.data) == (S.SCHEDULED, "AwaitingRetry", "boom", DATA)
    assert state.details == StateDetails(
        flow_run_id="run", scheduled_time=NOW + seconds * SECOND, deployment_concurrency_lease_id="l"
    )


def test_a_start_that_is_not_the_first_keeps_its_name() -> None:
    write = accepted(propose(flow_in(S.SCHEDULED, name="AwaitingRetry", run_count=1), S.RUNNING))
    assert (write.state.name, write.books.run_count) == ("Running", 2)


def test_a_client_may_mark_a_run_late_itself() -> None:
    assert accepted(propose(flow_in(S.SCHEDULED), Proposed(S.SCHEDULED, "Late"))).state.name == "Late"
    refused = propose(flow_in(S.RUNNING), Proposed(S.SCHEDULED, "Late"))
    assert refused == Reject("Only scheduled flows can be marked late.")
