from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlane.protocol.states import FINAL, StateName, StateType
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.orchestration.leases import End, RunView, decide_end_of_lease, decide_report
from runlane_broker.orchestration.runs import Retries
from runlane_broker.orchestration.states import may_follow

S = StateType
NOW = 1_000_000_000
PROPERTY = settings(max_examples=100, derandomize=True, deadline=None, database=None)

SECONDS = st.floats(0, 315_360_000)
RETRIES = st.builds(Retries, st.integers(0, 1000), st.lists(SECONDS, max_size=5).map(tuple), st.floats(0, 10))


def view(state: S = S.RUNNING, *, failures: int = 0, losses: int = 0, retries: int = 0) -> RunView:
    return RunView(state, failures, losses, Retries(retries, (10.0, 60.0), 0.0))


# --- Reports ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("current", [S.PENDING, S.RUNNING])
@pytest.mark.parametrize("final", sorted(FINAL - {S.FAILED}))
def test_an_end_that_is_no_failure_is_accepted_as_it_is(current: S, final: S) -> None:
    proposed = Proposed(final, "Named", "why")
    assert decide_report(view(current, retries=3), proposed, NOW, 0.0) == End(proposed)


@pytest.mark.parametrize(
    ("failures", "retries", "retriable", "retried"),
    [
        (0, 0, None, False),
        (0, 1, None, True),
        (1, 1, None, False),
        (1, 2, None, True),
        (2, 2, True, False),
        (0, 1, True, True),
        (0, 1, False, False),
        (5, 1, None, False),
    ],
)
@pytest.mark.parametrize("current", [S.PENDING, S.RUNNING])
def test_a_failure_is_retried_while_retries_are_left_and_it_is_retriable(
    current: S, failures: int, retries: int, retriable: bool | None, retried: bool
) -> None:
    run = view(current, failures=failures, retries=retries)
    proposed = Proposed(S.FAILED, message="boom")
    end = decide_report(run, proposed, NOW, 0.0, retriable=retriable)
    if retried:
        assert end is not None
        assert end.state == Proposed(S.SCHEDULED, StateName.AWAITING_RETRY, "boom")
    else:
        assert end == End(proposed)


@pytest.mark.parametrize(
    ("failures", "retry_after", "seconds"),
    [(0, None, 10), (1, None, 60), (2, None, 60), (0, 3.5, 3.5), (1, 0.0, 0)],
)
def test_a_retry_waits_for_the_delay_of_its_turn_or_as_long_as_the_worker_says(
    failures: int, retry_after: float | None, seconds: float
) -> None:
    run = view(failures=failures, retries=9)
    end = decide_report(run, Proposed(S.FAILED), NOW, 0.0, retry_after=retry_after)
    assert end is not None
    assert end.due == NOW + seconds * 1_000_000


def test_a_retry_after_is_not_stretched_by_jitter() -> None:
    run = RunView(S.RUNNING, 0, 0, Retries(1, (1.0,), 10.0))
    end = decide_report(run, Proposed(S.FAILED), NOW, 0.99, retry_after=2.0)
    assert end is not None
    assert end.due == NOW + 2_000_000


@pytest.mark.parametrize(
    ("proposed", "written"),
    [(S.COMPLETED, S.COMPLETED), (S.FAILED, S.CANCELLED), (S.CANCELLED, S.CANCELLED), (S.CRASHED, S.CRASHED)],
)
@pytest.mark.parametrize("retriable", [None, True, False])
def test_out_of_cancelling_the_truth_wins_and_a_failure_is_the_cancel_that_was_asked_for(
    proposed: S, written: S, retriable: bool | None
) -> None:
    run = view(S.CANCELLING, retries=3)
    end = decide_report(run, Proposed(proposed, message="m"), NOW, 0.0, retriable=retriable)
    assert end == End(Proposed(written, message="m"))


@PROPERTY
@given(
    state=st.sampled_from(S),
    failures=st.integers(0, 1001),
    retries=RETRIES,
    proposed=st.sampled_from(sorted(FINAL)),
    random=st.floats(0, 1, exclude_max=True),
    retriable=st.sampled_from((None, True, False)),
    retry_after=st.none() | SECONDS,
)
def test_what_is_decided_is_always_a_legal_transition(
    state: S,
    failures: int,
    retries: Retries,
    proposed: S,
    random: float,
    retriable: bool | None,
    retry_after: float | None,
) -> None:
    end = decide_report(
        RunView(state, failures, 0, retries),
        Proposed(proposed),
        NOW,
        random,
        retriable=retriable,
        retry_after=retry_after,
    )
    if end is None:
        return
    assert may_follow(state, end.state.type)
    assert (end.due is not None) == (end.state.type is S.SCHEDULED)
    assert end.due is None or end.due >= NOW


# --- Delays -------------------------------------------------------------------------------------------------


@PROPERTY
@given(retries=RETRIES, failures=st.integers(0, 1000), random=st.floats(0, 1, exclude_max=True))
def test_a_delay_is_that_of_its_turn_stretched_by_at_most_the_jitter(
    retries: Retries, failures: int, random: float
) -> None:
    delay = retries.delay(failures, random)
    base = retries.delays[min(failures, len(retries.delays) - 1)] if retries.delays else 0.0
    assert base <= delay <= base * (1 + retries.jitter)
    assert retries.delay(failures, 0.0) == base


@PROPERTY
@given(seconds=SECONDS, failures=st.integers(0, 1000))
def test_one_delay_is_for_every_turn(seconds: float, failures: int) -> None:
    assert Retries(1, (seconds,), 0.0).delay(failures, 0.5) == seconds


# --- The end of a lease ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [S.PENDING, S.RUNNING])
@pytest.mark.parametrize(
    ("lost", "losses", "parked"),
    [(False, 0, False), (False, 99, False), (True, 0, False), (True, 1, False), (True, 2, True), (True, 9, True)],
)
def test_a_run_is_queued_again_and_parked_when_it_lost_its_session_too_often(
    state: S, lost: bool, losses: int, parked: bool
) -> None:
    ended = decide_end_of_lease(view(state, losses=losses), "gone", lost=lost, max_losses=3)
    if parked:
        assert ended == Proposed(S.CRASHED, StateName.PARKED, f"gone ({losses + 1} times)")
    else:
        assert ended == Proposed(S.SCHEDULED, StateName.REQUEUED, "gone")
    assert may_follow(state, ended.type)


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("losses", [0, 9])
def test_a_run_that_was_being_cancelled_is_cancelled(lost: bool, losses: int) -> None:
    ended = decide_end_of_lease(view(S.CANCELLING, losses=losses), "gone", lost=lost, max_losses=3)
    assert ended == Proposed(S.CANCELLED, message="gone")


def test_a_state_without_a_name_has_that_of_its_type() -> None:
    assert Proposed(S.COMPLETED).label == "Completed"
    assert Proposed(S.FAILED, "TimedOut").label == "TimedOut"
