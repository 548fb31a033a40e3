"""An example of every route: what has to be there, what is sent, and what is answered.

A route without an example fails `test_contract`; so whoever adds a route adds a line here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.edges.harness import Host

_numbers = itertools.count(1)


def unique(prefix: str) -> str:
    """A name that nothing else has."""
    return f"{prefix}-{next(_numbers)}"


@dataclass(frozen=True)
class Example:
    """One request. `again` is the status of the same request a second time, where that differs."""

    path: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    again: int | None = None


Make = Callable[[Host], Example]


def post(host: Host, path: str, body: Any) -> Any:
    """Create something that an example needs."""
    answer = host.http.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


def a_task_run(host: Host, **fields: Any) -> Any:
    return post(host, "/api/task_runs/", {"task_key": unique("examples.task"), **fields})


def a_parked_run(host: Host) -> Any:
    run = a_task_run(host)
    parked = {"state": {"type": "CRASHED", "name": "Parked"}, "force": True}
    post(host, f"/api/task_runs/{run['id']}/set_state", parked)
    return run


def a_flow(host: Host) -> Any:
    return post(host, "/api/flows/", {"name": unique("flow"), "tags": ["a"], "labels": {"n": 1, "t": True}})


def a_flow_run(host: Host) -> Any:
    return post(host, "/api/flow_runs/", {"flow_id": a_flow(host)["id"]})


def a_parked_flow_run(host: Host) -> Any:
    run = a_flow_run(host)
    parked = {"state": {"type": "CRASHED", "name": "Parked"}, "force": True}
    post(host, f"/api/flow_runs/{run['id']}/set_state", parked)
    return run


def a_deployment(host: Host) -> Any:
    return post(host, "/api/deployments/", {"name": unique("deployment"), "flow_id": a_flow(host)["id"]})


def a_limit(host: Host) -> Any:
    return post(host, "/api/concurrency_limits/", {"tag": unique("a/tag"), "concurrency_limit": 1})


def a_queue(host: Host, **fields: Any) -> Any:
    return post(host, "/api/work_queues/", {"name": unique("queue"), **fields})


def a_pool(host: Host, **fields: Any) -> Any:
    return post(host, "/api/work_pools/", {"name": unique("pool"), **fields})


def _by_id(make: Callable[[Host], Any], **rest: Any) -> Make:
    return lambda host: Example(path={"id": make(host)["id"]}, **rest)


def _of_pool(**rest: Any) -> Make:
    return lambda host: Example(path={"name": a_pool(host)["name"]}, **rest)


def _of_pool_queue(name: str | None = None, **rest: Any) -> Make:
    def example(host: Host) -> Example:
        pool = a_pool(host)["name"]
        if name is None:
            post(host, f"/api/work_pools/{pool}/queues", {"name": "mine"})
        return Example(path={"name": pool, "queue": name or "mine"}, **rest)

    return example


def _deployment_by_name(host: Host) -> Example:
    flow = a_flow(host)
    made = post(host, "/api/deployments/", {"name": unique("deployment"), "flow_id": flow["id"]})
    return Example({"flow_name": flow["name"], "deployment_name": made["name"]})


def _of(make: Callable[[Host], Any], **options: Any) -> Make:
    """An example about one thing, named by its id in the path."""
    return lambda host: Example({"id": make(host)["id"]}, **options)


def _plain(**options: Any) -> Make:
    return lambda host: Example(**options)


def _lists(name: str) -> dict[str, Make]:
    """Examples of lists."""
    filters = {"flows": {"name": {"like_": "flow"}}, "deployments": None, "unknown": 1}
    return {
        f"POST /api/{name}/filter": _plain(body={**filters, "sort": None, "limit": 3, "offset": 1}),
        f"POST /api/{name}/count": _plain(body=filters),
        f"POST /api/{name}/paginate": _plain(body={**filters, "limit": 3, "page": 2}),
    }


def _runs(name: str, make: Callable[[Host], Any]) -> dict[str, Make]:
    """Examples of what runs of both kinds have."""
    path = f"/api/{name}s"
    history = {
        "history_start": "2026-03-01T00:00:00Z",
        "history_end": "2026-03-01T12:30:00",
        "history_interval_seconds": 3600,
    }
    states = f"/api/{name}_states/"
    return {
        **_lists(f"{name}s"),
        f"POST {path}/follow": _plain(body={"limit": 2}),
        f"POST {path}/history": _plain(body=history),
        f"GET {path}/{{id}}": _of(make),
        f"PATCH {path}/{{id}}": _of(make, body={"name": "another"}, status=204),
        f"DELETE {path}/{{id}}": _of(make, status=204, again=404),
        f"POST {path}/{{id}}/set_state": _of(
            make, body={"state": {"type": "RUNNING", "message": "now"}, "force": True}, status=201
        ),
        f"GET {states}": lambda host: Example(query={f"{name}_id": make(host)["id"]}),
        f"GET {states}{{id}}": lambda host: Example({"id": make(host)["state_id"]}),
    }


EXAMPLES: dict[str, Make] = {
    "POST /api/work_queues/": lambda host: Example(
        body={
            "name": unique("queue"),
            "description": "What for",
            "concurrency_limit": 2,
            "priority": 1,
            "filter": {"tags": ["a"]},
            "late_after": 2.5,
        },
        status=201,
        again=409,
    ),
    "POST /api/work_queues/filter": lambda _: Example(
        body={"work_queues": {"name": {"startswith_": ["queue"]}}, "limit": 5, "offset": None}
    ),
    "GET /api/work_queues/name/{name}": lambda host: Example(path={"name": a_queue(host)["name"]}),
    "GET /api/work_queues/{id}": _by_id(a_queue),
    "PATCH /api/work_queues/{id}": _by_id(a_queue, body={"is_paused": True, "priority": 1}, status=204),
    "DELETE /api/work_queues/{id}": _by_id(a_queue, status=204, again=404),
    "GET /api/work_queues/{id}/status": _by_id(a_queue),
    "POST /api/work_queues/{id}/get_runs": _by_id(
        a_queue, body={"limit": 5, "scheduled_before": "2030-01-01T00:00:00Z", "agent_id": None}
    ),
    "POST /api/work_queues/{id}/concurrency_status": _by_id(a_queue, body={"page": 1, "limit": 5}),
    "POST /api/work_pools/": lambda _: Example(
        body={"name": unique("pool"), "type": "process", "base_job_template": {"variables": {}}},
        status=201,
        again=409,
    ),
    "POST /api/work_pools/filter": lambda _: Example(body={"work_pools": None, "limit": None, "offset": None}),
    "POST /api/work_pools/count": lambda _: Example(body={"work_pools": {"type": {"any_": ["process"]}}}),
    "GET /api/work_pools/{name}": _of_pool(),
    "PATCH /api/work_pools/{name}": _of_pool(body={"is_paused": True, "concurrency_limit": None}, status=204),
    "DELETE /api/work_pools/{name}": _of_pool(status=204, again=404),
    "POST /api/work_pools/{name}/get_scheduled_flow_runs": _of_pool(
        body={"work_queue_names": ["default"], "scheduled_before": "2030-01-01T00:00:00Z", "limit": 3}
    ),
    "POST /api/work_pools/{name}/concurrency_status": _of_pool(body={"page": 1, "flow_run_limit": 0}),
    "POST /api/work_pools/{name}/queues": _of_pool(body={"name": "mine", "priority": 1}, status=201, again=409),
    "POST /api/work_pools/{name}/queues/filter": _of_pool(body={"work_queues": {"name": {"any_": ["default"]}}}),
    "GET /api/work_pools/{name}/queues/{queue}": _of_pool_queue(),
    "PATCH /api/work_pools/{name}/queues/{queue}": _of_pool_queue(body={"priority": 1}, status=204),
    "DELETE /api/work_pools/{name}/queues/{queue}": _of_pool_queue(status=204, again=404),
    "GET /api/admin/services": _plain(),
    "GET /livez": _plain(),
    "GET /readyz": _plain(),
    "GET /api/version": _plain(),
    "GET /api/health": _plain(),
    "GET /api/ready": _plain(),
    "GET /api/hello": _plain(),
    "GET /api/admin/version": _plain(),
    "GET /api/openapi.json": _plain(),
    "GET /api/docs": _plain(),
    "POST /api/task_runs/": lambda host: Example(
        body={
            "task_key": "examples.create",
            "dynamic_key": unique("key"),
            "name": "a run",
            "state": {"type": "SCHEDULED", "message": "soon", "state_details": {"deferred": True}},
            "empirical_policy": {"retries": 2, "retry_delay": [1, 2.5], "retry_jitter_factor": 0.5},
            "tags": ["a", "b"],
            "labels": {"n": 1},
            "task_inputs": {"x": [{"input_type": "constant", "type": "int"}]},
            "parameters": {"x": [1, {"y": None}]},
            "priority": 3,
        },
        status=201,
        again=200,
    ),
    "POST /api/flow_runs/{id}/cancel": _of(a_flow_run),
    "POST /api/flow_runs/{id}/requeue": _of(a_parked_flow_run, again=409),
    "POST /api/task_runs/{id}/cancel": _of(a_task_run),
    "POST /api/task_runs/cancel": lambda _: Example(body={"task_runs": {"tags": {"all_": [unique("none")]}}}),
    "POST /api/task_runs/{id}/requeue": _of(a_parked_run, again=409),
    "POST /api/task_runs/requeue": lambda _: Example(body={"task_runs": {"tags": {"all_": [unique("none")]}}}),
    "POST /api/task_runs/bulk": lambda host: Example(
        body={"task_runs": [{"task_key": "examples.bulk", "tags": [f"{n}"]} for n in range(3)]}
    ),
    **_runs("task_run", a_task_run),
    "POST /api/flow_runs/": lambda host: Example(
        body={
            "flow_id": a_flow(host)["id"],
            "name": None,
            "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": "2026-03-01T08:00:00+01:00"}},
            "parameters": {"x": [1]},
            "context": {"y": None},
            "tags": ["a"],
            "labels": {"n": 1},
            "idempotency_key": unique("key"),
            "empirical_policy": {"retries": 1, "retry_delay": 2},
        },
        status=201,
        again=200,
    ),
    "POST /api/flow_runs/lateness": _plain(body={"flow_runs": {"tags": {"all_": ["late"]}}}),
    **_runs("flow_run", a_flow_run),
    "GET /api/task_workers/missing": _plain(),
    "POST /api/task_workers/filter": _plain(body={"task_worker_filter": {"task_keys": ["examples.key"]}}),
    "POST /api/concurrency_limits/": lambda host: Example(
        body={"tag": unique("tag"), "concurrency_limit": 2}, status=201, again=200
    ),
    "POST /api/concurrency_limits/filter": _plain(body={"limit": 3, "offset": 0}),
    "GET /api/concurrency_limits/{id}": _of(a_limit),
    "DELETE /api/concurrency_limits/{id}": _of(a_limit, status=204, again=404),
    "GET /api/concurrency_limits/tag/{tag}": lambda host: Example({"tag": a_limit(host)["tag"]}),
    "DELETE /api/concurrency_limits/tag/{tag}": lambda host: Example(
        {"tag": a_limit(host)["tag"]}, status=204, again=404
    ),
    "POST /api/concurrency_limits/tag/{tag}/reset": lambda host: Example(
        {"tag": a_limit(host)["tag"]}, body={"slot_override": [a_task_run(host)["id"]]}
    ),
    "POST /api/flows/": lambda host: Example(
        body={"name": unique("flow"), "tags": ["a"], "labels": {"n": 1}}, status=201, again=200
    ),
    **_lists("flows"),
    **_lists("deployments"),
    "POST /api/deployments/{id}/create_flow_run": _of(
        a_deployment,
        body={"parameters": {"x": 2}, "tags": ["b"], "idempotency_key": "once"},
        status=201,
        again=200,
    ),
    "POST /api/deployments/get_scheduled_flow_runs": lambda host: Example(
        body={"deployment_ids": [a_deployment(host)["id"]], "scheduled_before": "2026-03-01T08:00:00Z"}
    ),
    "GET /api/flows/{id}": _of(a_flow),
    "GET /api/flows/name/{name}": lambda host: Example({"name": a_flow(host)["name"]}),
    "PATCH /api/flows/{id}": _of(a_flow, body={"tags": ["x"]}, status=204),
    "DELETE /api/flows/{id}": _of(a_flow, status=204, again=404),
    "POST /api/deployments/": lambda host: Example(
        body={"name": unique("deployment"), "flow_id": a_flow(host)["id"], "parameters": {"x": 1}, "tags": ["a"]},
        status=201,
        again=200,
    ),
    "GET /api/deployments/{id}": _of(a_deployment),
    "GET /api/deployments/name/{flow_name}/{deployment_name}": _deployment_by_name,
    "PATCH /api/deployments/{id}": _of(a_deployment, body={"paused": True, "version": None}, status=204),
    "DELETE /api/deployments/{id}": _of(a_deployment, status=204, again=404),
    "POST /api/deployments/{id}/pause_deployment": _of(a_deployment),
    "POST /api/deployments/{id}/resume_deployment": _of(a_deployment),
}
