"""The pace of reconnecting."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from runlane.transport.backoff import RESUME_MARGIN, open_seconds, retry_delay, seconds_in

FAILURES = st.integers(0, 10_000)
SECONDS = st.floats(0, 1e6)
#: The same examples every time, and none that is too slow: a machine may have much else to do.
PROPERTY = settings(derandomize=True, deadline=None, database=None)


@PROPERTY
@given(FAILURES, SECONDS, SECONDS, st.randoms(use_true_random=False))
def test_quick_while_a_session_may_be_resumed(
    failures: int, lost: float, resume: float, chance: random.Random
) -> None:
    delay = retry_delay(failures, lost, resume, chance.uniform)
    quick = lost < resume + RESUME_MARGIN
    assert 0.1 <= delay <= 0.5 if quick else 0.2 <= delay <= 30


@PROPERTY
@given(FAILURES, SECONDS)
def test_full_jitter_otherwise(failures: int, lost: float) -> None:
    def least(low: float, high: float) -> float:
        return low

    def most(low: float, high: float) -> float:
        return high

    assert retry_delay(failures, lost, None, least) == 0.2
    assert retry_delay(failures, lost, None, most) == min(30.0, 0.2 * 2 ** min(failures + 1, 20))


@PROPERTY
@given(FAILURES, SECONDS, st.floats(0.6, 60), st.randoms(use_true_random=False))
def test_whoever_holds_runs_comes_back_within_the_grace_however_long_the_broker_was_away(
    failures: int, lost: float, resume: float, chance: random.Random
) -> None:
    assert 2 * retry_delay(failures, lost, resume, chance.uniform, holds_runs=True) < max(resume, 1.01)


def test_the_waiting_time_of_a_4429_is_kept() -> None:
    assert seconds_in("come back in 2.5 s") == 2.5
    assert seconds_in("in 3600 s") == 60
    assert seconds_in("too much") == 0


def test_an_attempt_that_hangs_does_not_use_up_the_grace() -> None:
    assert open_seconds(0.0, None) == 5
    assert open_seconds(0.0, 3.0) == 1
    assert open_seconds(2.9, 3.0) == 1
    assert open_seconds(3.0, 3.0) == 5  # too late to resume: a slow network has its time
    assert open_seconds(0.0, 60.0) == 5
