"""The pytest plugin: a module outside the package, because pytest loads it at every start, for any project.

So nothing of Runlane is imported before a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from runlane import Task
    from runlane.testing import SyncTestBroker


@pytest.fixture
def runlane_tasks() -> Sequence[Task[..., Any]]:
    """The tasks that `runlane_broker` executes: override it. Empty: all that are defined when they are needed."""
    return ()


@pytest.fixture
def runlane_broker(runlane_tasks: Sequence[Task[..., Any]]) -> Generator[SyncTestBroker]:
    """A broker of the test's own; see `runlane.testing.sync_broker`. For sync and async tests alike."""
    from runlane.testing import sync_broker  # noqa: PLC0415  (see above)

    with sync_broker(*runlane_tasks) as broker:
        yield broker
