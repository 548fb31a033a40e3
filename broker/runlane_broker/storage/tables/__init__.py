"""The schema: what the migrations build, as SQLAlchemy metadata."""

from .base import metadata
from .brokers import broker, worker_session
from .flows import deployment, flow, flow_run, flow_run_payload, flow_run_state
from .kept import kept_object, log_line
from .kinds import FLOW_RUN, TASK_RUN, RunKind
from .queues import concurrency_limit, concurrency_slot, work_pool, work_queue
from .task_runs import task_run, task_run_cache, task_run_payload, task_run_state, task_run_wait

__all__ = [
    "FLOW_RUN",
    "TASK_RUN",
    "RunKind",
    "broker",
    "concurrency_limit",
    "concurrency_slot",
    "deployment",
    "flow",
    "flow_run",
    "flow_run_payload",
    "flow_run_state",
    "kept_object",
    "log_line",
    "metadata",
    "task_run",
    "task_run_cache",
    "task_run_payload",
    "task_run_state",
    "task_run_wait",
    "work_pool",
    "work_queue",
    "worker_session",
]
