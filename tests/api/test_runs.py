"""Runs over HTTP, as clients of the Prefect server API use them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runlane.protocol.ids import uuid7
from runlane_broker.schemas.limits import LimitReset
from tests.edges.harness import Host

from .examples import a_deployment, a_flow, a_flow_run, a_task_run, post, unique

#: The keys that a Prefect client's models know, all of which have to be there.
STATE_DETAILS = [
    "flow_run_id",
    "task_run_id",
    "child_flow_run_id",
    "scheduled_time",
    "cache_key",
    "cache_expiration",
    "deferred",
    "untrackable_result",
    "pause_timeout",
    "pause_reschedule",
    "pause_key",
    "run_input_keyset",
    "refresh_cache",
    "retriable",
    "transition_id",
    "task_parameters_id",
    "traceparent",
    "deployment_concurrency_lease_id",
]
STATE = ["id", "type", "name", "timestamp", "message", "data", "state_details"]
RUN = [
    "id",
    "created",
    "updated",
    "name",
    "tags",
    "labels",
    "state_id",
    "state_type",
    "state_name",
    "state",
    "run_count",
    "expected_start_time",
    "next_scheduled_start_time",
    "start_time",
    "end_time",
    "total_run_time",
    "estimated_run_time",
    "estimated_start_time_delta",
    "empirical_policy",
]
TASK_RUN = [
    "flow_run_id",
    "task_key",
    "dynamic_key",
    "cache_key",
    "cache_expiration",
    "task_version",
    "task_inputs",
    "flow_run_run_count",
]
FLOW_RUN = [
    "flow_id",
    "deployment_id",
    "deployment_version",
    "work_queue_id",
    "work_queue_name",
    "work_pool_id",
    "work_pool_name",
    "flow_version",
    "parameters",
    "idempotency_key",
    "context",
    "parent_task_run_id",
    "auto_scheduled",
    "infrastructure_document_id",
    "infrastructure_pid",
    "created_by",
    "job_variables",
]
POLICY = ["max_retries", "retry_delay_seconds", "retries", "retry_delay", "retry_jitter_factor"]

#: What Prefect 3.8.8 sends for `delay()`.
DELAYED: dict[str, Any] = {
    "state": {
        "type": "SCHEDULED", "name": "Scheduled", "message": None, "data": None,
        "state_details": {
            "flow_run_id": None, "task_run_id": None, "child_flow_run_id": None,
            "scheduled_time": "2026-03-01T08:00:00.000001Z", "cache_key": None, "cache_expiration": None,
            "deferred": True, "untrackable_result": False, "pause_timeout": None, "pause_reschedule": False,
            "pause_key": None, "run_input_keyset": None, "refresh_cache": None, "retriable": None,
            "transition_id": None, "task_parameters_id": "0192f3a0-5c1e-4d2a-9b3f-4e5d6c7b8a90",
            "traceparent": None, "deployment_concurrency_lease_id": None,
        },
    },
    "name": "add", "flow_run_id": None, "task_key": "add-a1d593e2", "dynamic_key": "add-a1d593e2-0",
    "cache_key": None, "cache_expiration": None, "task_version": None,
    "empirical_policy": {
        "max_retries": 0, "retry_delay_seconds": 0.0, "retries": 0, "retry_delay": 0, "retry_jitter_factor": None,
    },
    "tags": [], "labels": {},
    "task_inputs": {
        "x": [], "wait_for": [{"input_type": "task_run", "id": "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a91"}],
    },
}  # fmt: skip


def set_state(host: Host, run: Any, state: Any, *, kind: str = "task_runs", force: bool = False) -> Any:
    return host.http.post(f"/api/{kind}/{run['id']}/set_state", json={"state": state, "force": force})


def test_every_documented_key_is_there(broker: Host) -> None:
    task_run, flow_run = a_task_run(broker), a_flow_run(broker)
    assert {*RUN, *TASK_RUN} <= set(task_run)
    assert {*RUN, *FLOW_RUN} <= set(flow_run)
    for run in (task_run, flow_run):
        assert set(run["state"]) == set(STATE)
        assert set(run["state"]["state_details"]) == set(STATE_DETAILS)
        assert set(POLICY) <= set(run["empirical_policy"])


def test_what_a_prefect_client_sends_for_delay(broker: Host) -> None:
    body = {**DELAYED, "dynamic_key": unique("key")}
    first, second = (broker.http.post("/api/task_runs/", json=body) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    run = first.json()
    assert second.json()["id"] == run["id"]
    sent = body["state"]["state_details"]
    details = run["state"]["state_details"]
    assert details["task_run_id"] == run["id"]
    assert {name: details[name] for name in sent if name != "task_run_id"} == {
        name: value for name, value in sent.items() if name != "task_run_id"
    }
    assert run["expected_start_time"] == run["next_scheduled_start_time"] == "2026-03-01T08:00:00.000001Z"
    assert run["task_inputs"] == body["task_inputs"]


@pytest.mark.parametrize("kind", ["task_runs", "flow_runs"])
def test_the_states_of_a_run(broker: Host, kind: str) -> None:
    run = a_task_run(broker) if kind == "task_runs" else a_flow_run(broker)
    name = kind.removesuffix("s")
    answer = set_state(broker, run, {"type": "RUNNING", "data": {"x": 1}}, kind=kind)
    assert answer.status_code == 201
    result = answer.json()
    assert result["status"] == "ACCEPT"
    assert result["details"] == {"type": "accept_details"}
    assert result["state"]["data"] == {"x": 1}
    assert result["state"]["state_details"][f"{name}_id"] == run["id"]
    assert set_state(broker, run, {"type": "COMPLETED", "data": {"type": "ref"}}, kind=kind).status_code == 201
    refused = set_state(broker, run, {"type": "RUNNING"}, kind=kind)
    assert refused.status_code == 200
    assert refused.json()["status"] in {"REJECT", "ABORT"}
    assert refused.json()["details"]["reason"]
    assert set_state(broker, run, {"type": "RUNNING"}, kind=kind, force=True).status_code == 201
    states = broker.http.get(f"/api/{name}_states/", params={f"{name}_id": run["id"]}).json()
    assert [state["type"] for state in states] == ["PENDING", "RUNNING", "COMPLETED", "RUNNING"]
    assert broker.http.get(f"/api/{name}_states/{states[1]['id']}").json() == states[1]
    shown = broker.http.get(f"/api/{kind}/{run['id']}").json()
    assert shown["state"] == states[-1]
    assert shown["run_count"] == 2
    assert broker.http.get(f"/api/{name}_states/", params={f"{name}_id": uuid7()}).json() == []


def test_a_state_of_a_run_that_there_is_not(broker: Host) -> None:
    run_id = uuid7()
    answer = set_state(broker, {"id": run_id}, {"type": "RUNNING"})
    assert answer.status_code == 404
    assert answer.json()["exception_message"] == f"Task run with id {run_id} not found"


def test_a_retry_is_a_rejection_with_another_state(broker: Host) -> None:
    flow_run = a_flow_run(broker)
    set_state(broker, flow_run, {"type": "RUNNING"}, kind="flow_runs")
    run = a_task_run(
        broker, flow_run_id=flow_run["id"], dynamic_key="0", empirical_policy={"retries": 1, "retry_delay": 60}
    )
    set_state(broker, run, {"type": "RUNNING"})
    failed = set_state(broker, run, {"type": "FAILED"})
    assert failed.status_code == 201
    assert failed.json()["status"] == "REJECT"
    assert failed.json()["state"]["name"] == "AwaitingRetry"
    early = set_state(broker, run, {"type": "RUNNING"})
    assert early.status_code == 200
    assert early.json()["status"] == "WAIT"
    assert 50 < early.json()["details"]["delay_seconds"] <= 60


def test_runs_without_their_flow_run(broker: Host) -> None:
    body = {"task_key": unique("orphan"), "dynamic_key": "0", "flow_run_id": uuid7()}
    answer = broker.http.post("/api/task_runs/", json=body)
    assert answer.status_code == 409
    assert answer.json()["detail"]
    (bulk,) = post(broker, "/api/task_runs/bulk", {"task_runs": [body]})
    assert (bulk["created"], bulk["error"]) == (False, "not_found")


def test_many_at_once_each_with_its_outcome(broker: Host) -> None:
    key, run_id = unique("bulk"), uuid7()
    runs = [
        {"task_key": key, "id": run_id, "parameters": {"x": 1}},
        {"task_key": key, "id": run_id, "parameters": {"x": 1}},
        {"task_key": key, "id": run_id, "parameters": {"x": 2}},
        {"task_key": key},
    ]
    created = post(broker, "/api/task_runs/bulk", {"task_runs": runs})
    assert [(one["created"], one.get("error")) for one in created] == [
        (True, None),
        (False, None),
        (False, "id_conflict"),
        (True, None),
    ]


def test_lists_pages_and_cursors_show_the_same(broker: Host) -> None:
    key = unique("listed")
    created = post(broker, "/api/task_runs/bulk", {"task_runs": [{"task_key": key} for _ in range(7)]})
    ids = [one["id"] for one in reversed(created)]
    which = {"task_runs": {"task_key": {"any_": [key]}}}
    assert post(broker, "/api/task_runs/count", which) == 7
    assert [run["id"] for run in post(broker, "/api/task_runs/filter", which)] == ids
    assert [run["id"] for run in post(broker, "/api/task_runs/filter", {**which, "limit": 2, "offset": 3})] == ids[
        3:5
    ]
    page = post(broker, "/api/task_runs/paginate", {**which, "limit": 3, "page": 3})
    assert [run["id"] for run in page.pop("results")] == ids[6:]
    assert page == {"count": 7, "limit": 3, "pages": 3, "page": 3}
    nothing = post(broker, "/api/task_runs/paginate", {**which, "limit": 0})
    assert (nothing["pages"], nothing["results"]) == (0, [])
    followed: list[str] = []
    cursor = None
    for _ in range(4):
        answer = post(broker, "/api/task_runs/follow", {**which, "limit": 2, "cursor": cursor})
        followed += [run["id"] for run in answer["results"]]
        cursor = answer["next"]
    assert cursor is None
    assert followed == ids


def test_what_prefects_command_line_asks_with_all_its_nulls(broker: Host) -> None:
    run = a_task_run(broker, tags=["cli"])
    body = {
        "flows": None,
        "flow_runs": None,
        "task_runs": {
            "operator": "and_",
            "id": {"any_": [run["id"]]},
            "name": None,
            "tags": None,
            "state": {"operator": "and_", "type": {"any_": ["PENDING"]}, "name": None},
            "start_time": None,
            "end_time": None,
            "subflow_runs": None,
            "flow_run_id": None,
        },
        "deployments": None,
        "sort": "EXPECTED_START_TIME_DESC",
        "limit": None,
        "offset": None,
    }
    assert [one["id"] for one in post(broker, "/api/task_runs/filter", body)] == [run["id"]]


def test_history_in_bars(broker: Host) -> None:
    key = unique("charted")
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2031-03-01T08:30:00Z"}}
    a_task_run(broker, tags=[key], state=state)
    body = {
        "history_start": "2031-03-01 08:00:00",
        "history_end": "2031-03-01T09:59:00Z",
        "history_interval_seconds": "PT30M",
        "task_runs": {"tags": {"all_": [key]}},
    }
    bars = post(broker, "/api/task_runs/history", body)
    assert [bar["interval_start"] for bar in bars] == [
        f"2031-03-01T{hour}:00Z" for hour in ("08:00", "08:30", "09:00", "09:30")
    ]
    assert bars[-1]["interval_end"] == "2031-03-01T10:00:00Z"
    assert [len(bar["states"]) for bar in bars] == [0, 1, 0, 0]
    assert bars[1]["states"] == [
        {
            "state_type": "SCHEDULED",
            "state_name": "Scheduled",
            "count_runs": 1,
            "sum_estimated_run_time": 0.0,
            "sum_estimated_lateness": 0.0,
        }
    ]
    assert post(broker, "/api/task_runs/history", {**body, "history_end": body["history_start"]}) == []


def test_a_deleted_run_never_starts(broker: Host) -> None:
    run = a_task_run(broker, state={"type": "SCHEDULED"})
    assert broker.http.delete(f"/api/task_runs/{run['id']}").status_code == 204
    assert broker.http.get(f"/api/task_runs/{run['id']}").status_code == 404
    assert broker.http.get("/api/task_run_states/", params={"task_run_id": run["id"]}).json() == []


def test_a_run_of_a_deployment_is_the_deployments_with_what_was_asked(broker: Host) -> None:
    flow = a_flow(broker)
    body = {
        "name": unique("deployment"),
        "flow_id": flow["id"],
        "parameters": {"a": 1, "b": {"deep": [1]}},
        "tags": ["x", "y"],
        "version": "7",
    }
    deployment = post(broker, "/api/deployments/", body)
    asked = {"parameters": {"a": 2}, "tags": ["y", "z"]}
    run = post(broker, f"/api/deployments/{deployment['id']}/create_flow_run", asked)
    assert run["flow_id"] == flow["id"]
    assert run["deployment_id"] == deployment["id"]
    assert run["parameters"] == {"a": 2, "b": {"deep": [1]}}
    assert run["tags"] == ["x", "y", "z"]
    assert run["flow_version"] == "7"
    assert run["state_type"] == "SCHEDULED"
    scheduled = post(
        broker, "/api/deployments/get_scheduled_flow_runs", {"deployment_ids": [deployment["id"]], "limit": 5}
    )
    assert [one["id"] for one in scheduled] == [run["id"]]


def test_a_flow_run_is_changed_by_what_is_given(broker: Host) -> None:
    """A Prefect worker sends all of this, in several requests."""
    run = a_flow_run(broker)
    path = f"/api/flow_runs/{run['id']}"
    policy = {"retries": 2, "retry_delay": [1, 5], "pause_keys": [], "resuming": False, "retry_type": None}
    changes = {
        "name": "other",
        "tags": ["b", "c"],
        "parameters": {"x": 1},
        "job_variables": {"cpu": 2},
        "flow_version": "v2",
        "infrastructure_pid": "host:17",
    }
    assert broker.http.patch(path, json={"empirical_policy": policy}).status_code == 204
    for name, value in changes.items():
        assert broker.http.patch(path, json={name: value}).status_code == 204
    assert broker.http.patch(path, json=dict.fromkeys(changes)).status_code == 204  # null stays as it is
    changed = broker.http.get(path).json()
    assert {name: changed[name] for name in changes} == changes
    assert (changed["empirical_policy"]["retries"], changed["empirical_policy"]["retry_delay"]) == (2, [1.0, 5.0])
    other = {"updated", "empirical_policy", "estimated_start_time_delta", *changes}
    assert {k: v for k, v in changed.items() if k not in other} == {k: v for k, v in run.items() if k not in other}
    for name, wrong in {"parameters": [1], "tags": "a", "infrastructure_pid": 17, "state": {}}.items():
        refused = broker.http.patch(path, json={name: wrong})
        assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", name])
    assert broker.http.patch(f"/api/flow_runs/{uuid7()}", json={"tags": []}).status_code == 404


def test_objects_that_may_be_null_may_be_objects(broker: Host) -> None:
    flow_id, given = a_flow(broker)["id"], {"cpu": {"n": 2}}
    for value, shown in [(given, given), (None, {}), ({}, {})]:
        run = post(broker, "/api/flow_runs/", {"flow_id": flow_id, "job_variables": value})
        assert run["job_variables"] == shown
        objects = {"job_variables": value, "parameter_openapi_schema": value}
        made = post(broker, "/api/deployments/", {"name": unique("d"), "flow_id": flow_id, **objects})
        assert (made["job_variables"], made["parameter_openapi_schema"]) == (shown, shown)
        created = post(broker, f"/api/deployments/{made['id']}/create_flow_run", {"job_variables": value})
        assert created["job_variables"] == shown
        pool = post(broker, "/api/work_pools/", {"name": unique("pool"), "storage_configuration": value})
        patch = {"base_job_template": value, "storage_configuration": value}
        assert broker.http.patch(f"/api/work_pools/{pool['name']}", json=patch).status_code == 204
        assert broker.http.get(f"/api/work_pools/{pool['name']}").json()["base_job_template"] == shown
    wrong = broker.http.post("/api/flow_runs/", json={"flow_id": flow_id, "job_variables": [1]})
    assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["body", "job_variables"])


def test_a_deployment_is_changed_by_what_is_given(broker: Host) -> None:
    deployment = a_deployment(broker)
    path = f"/api/deployments/{deployment['id']}"
    assert broker.http.patch(path, json={"description": "new", "parameters": {"x": 1}}).status_code == 204
    changed = broker.http.get(path).json()
    assert (changed["description"], changed["parameters"]) == ("new", {"x": 1})
    assert broker.http.patch(path, json={"description": None}).status_code == 204
    assert broker.http.get(path).json()["description"] is None
    again = post(broker, "/api/deployments/", {"name": deployment["name"], "flow_id": deployment["flow_id"]})
    assert (again["id"], again["parameters"]) == (deployment["id"], {})
    missing = {"name": "x", "flow_id": deployment["flow_id"], "work_pool_name": "no-such-pool"}
    assert broker.http.post("/api/deployments/", json=missing).status_code == 404


def test_a_flow_takes_all_that_is_its_own_with_it(broker: Host) -> None:
    flow = a_flow(broker)
    deployment = post(broker, "/api/deployments/", {"name": "d", "flow_id": flow["id"]})
    flow_run = post(broker, "/api/flow_runs/", {"flow_id": flow["id"]})
    run = a_task_run(broker, flow_run_id=flow_run["id"], dynamic_key="0")
    other = a_task_run(broker)
    assert broker.http.delete(f"/api/flows/{flow['id']}").status_code == 204
    for path in (f"deployments/{deployment['id']}", f"flow_runs/{flow_run['id']}", f"task_runs/{run['id']}"):
        assert broker.http.get(f"/api/{path}").status_code == 404
    assert broker.http.get(f"/api/task_runs/{other['id']}").status_code == 200


def test_ids_in_bodies_may_be_in_upper_case(broker: Host) -> None:
    run, flow_run, input_ = uuid7(), a_flow_run(broker)["id"], uuid7()
    body = {
        "task_key": "upper.case",
        "id": run.upper(),
        "flow_run_id": flow_run.upper(),
        "cache_key": input_.upper(),
        "task_inputs": {"x": [{"input_type": "task_run", "id": input_.upper()}]},
    }
    created = post(broker, "/api/task_runs/", body)
    assert (created["id"], created["flow_run_id"]) == (run, flow_run)
    assert created["task_inputs"]["x"][0]["id"] == input_
    assert created["cache_key"] == input_.upper()
    assert post(broker, "/api/task_runs/", {**body, "id": run})["id"] == run
    assert msgspec.convert({"slot_override": [run.upper()]}, LimitReset).slot_override == [run]
