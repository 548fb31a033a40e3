"""Workers that are connected now."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from runlane.protocol.messages import TaskKey, Time

from .base import Parameters, Request, Response


class TaskWorkerFilter(Request):
    """Workers that serve any of these keys; all of them, if there are none."""

    task_keys: Annotated[list[TaskKey], Meta(max_length=1000)]


class TaskWorkersFilter(Parameters):
    """Which workers."""

    task_worker_filter: TaskWorkerFilter | None = None


class UnservedKey(Response):
    """A task key without a worker, for how many seconds by now, and how many runs have come for it meanwhile."""

    task_key: str
    seconds: float
    waiting: int


class TaskWorker(Response):
    """A worker: `timestamp` is when it was last heard of, `since` when it has subscribed.

    `queues` are the work queues that it serves, as `pool/queue`.
    """

    identifier: str
    task_keys: list[str]
    queues: list[str]
    timestamp: Time
    since: Time
    in_flight: int
    free_slots: int
