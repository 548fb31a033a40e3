"""Which runs have the slots of work queues and work pools."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from .base import Limit, Parameters, Response, check_limit
from .lists import PageNumber
from .runs import Page


class QueueSlots(Parameters):
    """Which page of the runs that have a slot."""

    page: PageNumber = None
    limit: Limit = None

    def check(self) -> None:
        """Raise `Invalid` for a limit out of range."""
        check_limit(self.limit)


class PoolSlots(QueueSlots):
    """Which page of a pool's queues, and how many runs of each."""

    flow_run_limit: Annotated[int, Meta(ge=0, le=200)] = 10


class SlotHolder(Response):
    """A flow run that has a slot. `time_in_current_state` is in seconds."""

    id: str
    name: str
    state_type: str
    state_name: str
    start_time: datetime | None
    state_timestamp: datetime
    time_in_current_state: float


class QueueConcurrency(Page):
    """The slots of a queue, and a page of the runs that have them, longest in their state first."""

    active_slots: int
    concurrency_limit: int | None
    flow_runs: list[SlotHolder]


class QueueOfPool(Response):
    """The slots of one of a pool's queues, and the first of the runs that have them."""

    queue_id: str
    queue_name: str
    active_slots: int
    concurrency_limit: int | None
    flow_runs: list[SlotHolder]
    flow_run_count: int


class PoolConcurrency(Page):
    """The slots of a pool, and a page of its queues, the first in line first."""

    active_slots: int
    concurrency_limit: int | None
    queues: list[QueueOfPool]
