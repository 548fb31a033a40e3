from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from runlane.testing import SyncTestBroker, sync_broker

from . import tasks


@pytest.fixture(autouse=True)
def _empty_log() -> Iterator[None]:
    tasks.log.clear()
    logging.getLogger("runlane.worker").setLevel(logging.ERROR)  # tasks that fail are what is wanted here
    yield
    logging.getLogger("runlane.worker").setLevel(logging.NOTSET)


@pytest.fixture
def kit() -> Iterator[SyncTestBroker]:
    with sync_broker(
        tasks.add, tasks.mul, tasks.flaky, tasks.broken, tasks.snoozer, tasks.deliver, tasks.loose, tasks.heavy
    ) as broker:
        yield broker
