"""Short ways to make runs, and the settings of the property tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from runlane_broker.dispatch import RETRY_LANE, SCHEDULED_LANE, QueuedRun

#: The same examples every time, and nothing written to disk.
PROPERTY = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

#: Few values, so that runs are equal in most of their rank.
PRIORITIES = st.integers(0, 2)
LANES = st.sampled_from((RETRY_LANE, SCHEDULED_LANE))
DUES = st.integers(0, 3)


def make_run(
    run_id: str, key: str = "a", *, priority: int = 0, lane: int = SCHEDULED_LANE, due: int = 0
) -> QueuedRun:
    return QueuedRun(id=run_id, task_key=key, priority=priority, lane=lane, due=due)


def runs_in_order(*ids: str, key: str = "a") -> list[QueuedRun]:
    """Runs that rank in the order given."""
    return [make_run(run_id, key, due=due) for due, run_id in enumerate(ids)]


def never_busy(run_id: str) -> bool:
    return False
