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


def a_flow(host: Host) -> Any:
    return post(host, "/api/flows/", {"name": unique("flow"), "tags": ["a"], "labels": {"n": 1, "t": True}})


def a_deployment(host: Host) -> Any:
    return post(host, "/api/deployments/", {"name": unique("deployment"), "flow_id": a_flow(host)["id"]})


def a_limit(host: Host) -> Any:
    return post(host, "/api/concurrency_limits/", {"tag": unique("a/tag"), "concurrency_limit": 1})


def _deployment_by_name(host: Host) -> Example:
    flow = a_flow(host)
    made = post(host, "/api/deployments/", {"name": unique("deployment"), "flow_id": flow["id"]})
    return Example({"flow_name": flow["name"], "deployment_name": made["name"]})


def _of(make: Callable[[Host], Any], **options: Any) -> Make:
    """An example about one thing, named by its id in the path."""
    return lambda host: Example({"id": make(host)["id"]}, **options)


def _plain(**options: Any) -> Make:
    return lambda host: Example(**options)


EXAMPLES: dict[str, Make] = {
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
    "GET /api/task_runs/{id}": _of(a_task_run),
    "GET /api/task_run_states/": lambda host: Example(query={"task_run_id": a_task_run(host)["id"]}),
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
