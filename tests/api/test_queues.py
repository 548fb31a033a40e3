"""Work pools and work queues over HTTP: what is refused and in which words, and what polling gives."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.edges.harness import Host
from tests.storage.flow_runs import insert_flow_runs, set_state
from tests.support import SECOND

from .examples import a_pool, a_queue, post, unique

UNKNOWN = "01234567-89ab-7def-8123-456789abcdef"


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", f"/api/work_queues/{UNKNOWN}", "work queue not found"),
        ("GET", "/api/work_queues/name/nope", "work queue not found"),
        ("PATCH", f"/api/work_queues/{UNKNOWN}", f"Work Queue {UNKNOWN} not found"),
        ("DELETE", f"/api/work_queues/{UNKNOWN}", f"Work Queue {UNKNOWN} not found"),
        ("GET", f"/api/work_queues/{UNKNOWN}/status", f"Work queue with id {UNKNOWN} not found"),
        ("POST", f"/api/work_queues/{UNKNOWN}/get_runs", f"Work queue with id {UNKNOWN} not found."),
        ("POST", f"/api/work_queues/{UNKNOWN}/concurrency_status", "Work queue not found."),
        ("POST", "/api/work_pools/nope/concurrency_status", 'Work pool "nope" not found.'),
        ("GET", "/api/work_pools/nope", 'Work pool "nope" not found.'),
        ("PATCH", "/api/work_pools/nope", 'Work pool "nope" not found.'),
        ("DELETE", "/api/work_pools/nope", 'Work pool "nope" not found.'),
        ("POST", "/api/work_pools/nope/queues/filter", 'Work pool "nope" not found.'),
        ("POST", "/api/work_pools/nope/get_scheduled_flow_runs", 'Work pool "nope" not found.'),
        ("GET", "/api/work_pools/nope/queues/q", "Work pool queue 'nope/q' not found."),
        ("PATCH", "/api/work_pools/nope/queues/q", "Work pool queue 'nope/q' not found."),
        ("DELETE", "/api/work_pools/nope/queues/q", "Work pool queue 'nope/q' not found."),
    ],
)
def test_what_is_not_there(broker: Host, method: str, path: str, message: str) -> None:
    answer = broker.http.request(method, path, json={} if method in ("POST", "PATCH") else None)
    assert (answer.status_code, answer.json()["detail"]) == (404, message)
    assert answer.json()["exception_message"] == message


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": 0},
        {"priority": -1},
        {"concurrency_limit": -1},
        {"late_after": -1},
        {"name": "a/b"},
        {"name": ""},
        {"is_paused": "yes"},
        {"filter": {"tags": "a"}},
        {"filter": {"tags": ["a"], "other": 1}},
        {"what": 1},
    ],
)
def test_bad_input_is_refused_and_changes_nothing(broker: Host, fields: dict[str, Any]) -> None:
    queue = a_queue(broker)
    before = broker.http.get(f"/api/work_queues/{queue['id']}").json()
    created = broker.http.post("/api/work_queues/", json={"name": unique("queue"), **fields})
    changed = broker.http.patch(f"/api/work_queues/{queue['id']}", json=fields)
    assert (created.status_code, changed.status_code) == (422, 422)
    assert next(iter(fields)) in created.json()["detail"][0]["loc"]
    assert broker.http.get(f"/api/work_queues/{queue['id']}").json() == before


def test_refusals_of_pools(broker: Host) -> None:
    pool = a_pool(broker)["name"]
    reserved = broker.http.post("/api/work_pools/", json={"name": "pReFect-x"})
    assert reserved.status_code == 403
    assert reserved.json()["detail"] == "Work pools starting with 'Prefect' are reserved for internal use."
    both = broker.http.post(f"/api/work_pools/{pool}/queues", json={"name": "q", "filter": {"tags": ["a"]}})
    assert both.status_code == 422, "a pool's queue has runs of its own"
    mine = post(broker, f"/api/work_pools/{pool}/queues", {"name": "mine"})
    for route in (f"/api/work_queues/{mine['id']}", f"/api/work_pools/{pool}/queues/mine"):
        both = broker.http.patch(route, json={"filter": {"tags": ["a"]}, "description": "changed"})
        assert (both.status_code, both.json()["detail"][0]["loc"]) == (422, ["body", "filter"])
    assert broker.http.get(f"/api/work_queues/{mine['id']}").json() == mine
    default = broker.http.delete(f"/api/work_pools/{pool}/queues/default")
    assert default.status_code == 409
    assert "default queue" in default.json()["detail"]
    assert broker.http.get(f"/api/work_pools/{pool}/queues/default").status_code == 200


def test_a_queue_of_a_pool_takes_no_filter_besides_its_own_runs(broker: Host) -> None:
    url = f"/api/work_pools/{a_pool(broker)['name']}/queues"
    post(broker, url, {"name": "mine", "priority": 1})

    def shown() -> Any:
        queues = broker.http.post(f"{url}/filter", json={}).json()
        return queues, broker.http.post("/api/work_queues/filter", json={}).json()

    before = shown()
    asked = {"filter": {"tags": ["a"], "deployment_ids": [UNKNOWN]}, "priority": 1, "is_paused": True}
    for answer in (
        broker.http.post(url, json={"name": "other", **asked}),
        broker.http.patch(f"{url}/mine", json={"name": "other", **asked}),
    ):
        assert answer.status_code == 422
        assert "filter" in answer.json()["detail"][0]["loc"]
    assert shown() == before
    assert broker.http.patch(f"{url}/mine", json={"filter": None}).status_code == 204, "none is none"


def test_pausing_resuming_and_ranking_on_both_routes(broker: Host) -> None:
    pool = a_pool(broker)["name"]
    mine = post(broker, f"/api/work_pools/{pool}/queues", {"name": "mine"})
    by_id, by_name = f"/api/work_queues/{mine['id']}", f"/api/work_pools/{pool}/queues/mine"
    assert (
        broker.http.patch(by_id, json={"is_paused": True, "priority": 1, "description": None}).status_code == 204
    )
    shown = broker.http.get(by_name).json()
    assert (shown["status"], shown["is_paused"], shown["priority"], shown["description"]) == (
        "PAUSED",
        True,
        1,
        "",
    )
    ranks = broker.http.post(f"/api/work_pools/{pool}/queues/filter", json={}).json()
    assert [(queue["name"], queue["priority"]) for queue in ranks] == [("mine", 1), ("default", 2)]
    assert broker.http.patch(by_name, json={"is_paused": False, "late_after": 5}).status_code == 204
    shown = broker.http.get(by_id).json()
    assert (shown["status"], shown["late_after"]) == ("NOT_READY", 5.0)


def test_the_status_of_a_pool_is_that_of_its_queues(broker: Host) -> None:
    pool = a_pool(broker)
    url = f"/api/work_pools/{pool['name']}"

    def status() -> set[str]:
        (listed,) = post(broker, "/api/work_pools/filter", {"work_pools": {"name": {"any_": [pool["name"]]}}})
        return {listed["status"], broker.http.get(url).json()["status"]}

    assert {pool["status"]} == status() == {"NOT_READY"}
    post(broker, f"{url}/queues", {"name": "polled"})
    post(broker, f"{url}/get_scheduled_flow_runs", {"work_queue_names": ["polled"]})
    assert status() == {"READY"}
    broker.http.patch(url, json={"is_paused": True})
    assert status() == {"PAUSED"}
    broker.http.patch(url, json={"is_paused": False})
    assert status() == {"READY"}


def test_polling_a_queue(broker: Host) -> None:
    queue = a_queue(broker, concurrency_limit=2)
    url = f"/api/work_queues/{queue['id']}"
    values = {"work_queue_id": queue["id"], "work_queue_name": queue["name"]}
    ids = insert_flow_runs(broker.path, *({**values, "due": i * SECOND} for i in range(3)))
    for said in ("true", "True", "TRUE"):
        looked = broker.http.post(f"{url}/get_runs", headers={"X-PREFECT-UI": said})
        assert [run["id"] for run in looked.json()] == ids[:2]
        pool = broker.http.post(
            "/api/work_pools/default-agent-pool/get_scheduled_flow_runs",
            json={"work_queue_names": [queue["name"]]},
            headers={"X-PREFECT-UI": said},
        )
        assert pool.status_code == 200
        assert broker.http.get(url).json()["status"] == "NOT_READY", said
    future = broker.http.patch(url, json={"last_polled": "2100-01-01T00:00:00Z"})
    assert (future.status_code, future.json()["detail"][0]["loc"]) == (422, ["body", "last_polled"])
    polled = broker.http.post(f"{url}/get_runs", json={"limit": 10})
    assert [run["id"] for run in polled.json()] == ids[:2]
    assert polled.json()[0]["work_queue_id"] == queue["id"]
    assert broker.http.get(url).json()["status"] == "READY"
    health = broker.http.get(f"{url}/status").json()
    assert (health["healthy"], health["late_runs_count"]) == (True, 0)
    assert health["health_check_policy"] == {"maximum_late_runs": 0, "maximum_seconds_since_last_polled": 60}
    set_state(broker.path, ids[0], "RUNNING")
    set_state(broker.path, ids[2], "SCHEDULED", state_name="Late")
    assert broker.http.get(url).json()["active_slots"] == 1
    health = broker.http.get(f"{url}/status").json()
    assert (health["healthy"], health["late_runs_count"]) == (False, 1)


def test_a_queue_with_a_filter_shows_its_slots_and_takes_no_run_by_name(broker: Host) -> None:
    tag = unique("tag")
    found = a_queue(broker, filter={"tags": [tag]}, concurrency_limit=1)
    flow = post(broker, "/api/flows/", {"name": unique("flow")})
    deployment = post(broker, "/api/deployments/", {"name": "d", "flow_id": flow["id"], "tags": [tag]})
    url = f"/api/deployments/{deployment['id']}/create_flow_run"
    first, second = post(broker, url, {}), post(broker, url, {})
    pending = {"state": {"type": "PENDING"}}
    assert broker.http.post(f"/api/flow_runs/{first['id']}/set_state", json=pending).status_code == 201
    refused = broker.http.post(f"/api/flow_runs/{second['id']}/set_state", json=pending).json()
    assert refused["status"] == "ABORT"
    assert "by its filter, has 1 slots" in refused["details"]["reason"]
    assert broker.http.get(f"/api/work_queues/{found['id']}").json()["active_slots"] == 1
    slots = broker.http.post(f"/api/work_queues/{found['id']}/concurrency_status").json()
    assert (slots["active_slots"], [run["id"] for run in slots["flow_runs"]]) == (1, [first["id"]])
    named = {"work_queue_name": found["name"]}
    for answer in (
        broker.http.post("/api/flow_runs/", json={"flow_id": flow["id"], **named}),
        broker.http.post("/api/deployments/", json={"flow_id": flow["id"], "name": "other", **named}),
        broker.http.patch(f"/api/deployments/{deployment['id']}", json=named),
        broker.http.post(url, json=named),
    ):
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "work_queue_name"])


@pytest.mark.parametrize("what", ["queue", "pool"])
def test_a_queue_with_a_filter_gives_nothing_while_it_or_its_pool_is_paused(broker: Host, what: str) -> None:
    tag = unique("tag")
    found = a_queue(broker, filter={"tags": [tag]})
    flow = post(broker, "/api/flows/", {"name": unique("flow")})
    deployment = post(broker, "/api/deployments/", {"name": "d", "flow_id": flow["id"], "tags": [tag]})
    made = post(broker, f"/api/deployments/{deployment['id']}/create_flow_run", {})
    paused = {"queue": f"/api/work_queues/{found['id']}", "pool": f"/api/work_pools/{found['work_pool_name']}"}
    polled = f"/api/work_queues/{found['id']}/get_runs"
    assert broker.http.patch(paused[what], json={"is_paused": True}).status_code == 204
    try:
        assert post(broker, polled, {}) == []
    finally:
        assert broker.http.patch(paused[what], json={"is_paused": False}).status_code == 204
    assert [run["id"] for run in post(broker, polled, {})] == [made["id"]]


def test_who_has_the_slots(broker: Host) -> None:
    pool = a_pool(broker, concurrency_limit=9)
    url = f"/api/work_pools/{pool['name']}"
    mine = post(broker, f"{url}/queues", {"name": "mine", "concurrency_limit": 5})
    states = {
        "running": {"state_type": "RUNNING", "start_time": SECOND},
        "stopping": {"state_type": "CANCELLING"},
        "retried": {"state_name": "AwaitingRetry", "retry_type": "in_process"},
        "waiting": {},
        "over": {"state_type": "COMPLETED"},
    }
    now = time.time_ns() // 1000
    insert_flow_runs(
        broker.path,
        *(
            {"name": name, "work_queue_id": mine["id"], "state_timestamp": now - (60 - i) * SECOND, **state}
            for i, (name, state) in enumerate(states.items())
        ),
        {"name": "other", "work_queue_id": pool["default_queue_id"], "state_type": "PENDING"},
    )

    def names(runs: Any) -> list[str]:
        return [run["name"] for run in runs]

    of_queue = post(broker, f"/api/work_queues/{mine['id']}/concurrency_status", {})
    runs = of_queue.pop("flow_runs")
    assert of_queue == {
        "active_slots": 3, "concurrency_limit": 5, "count": 3, "limit": 200, "pages": 1, "page": 1
    }  # fmt: skip
    assert names(runs) == ["running", "stopping", "retried"]
    assert (runs[0]["state_type"], runs[0]["start_time"], runs[1]["start_time"]) == (
        "RUNNING",
        "1970-01-01T00:00:01Z",
        None,
    )
    assert 60 <= runs[0]["time_in_current_state"] < 600
    page = post(broker, f"/api/work_queues/{mine['id']}/concurrency_status", {"page": 2, "limit": 2})
    assert (names(page["flow_runs"]), page["pages"], page["page"]) == (["retried"], 2, 2)

    of_pool = post(broker, f"{url}/concurrency_status", {"flow_run_limit": 1})
    assert (of_pool["active_slots"], of_pool["concurrency_limit"], of_pool["count"]) == (4, 9, 2)
    assert [
        (queue["queue_name"], queue["active_slots"], queue["concurrency_limit"], names(queue["flow_runs"]))
        for queue in of_pool["queues"]
    ] == [("default", 1, None, ["other"]), ("mine", 3, 5, ["running"])]
    page = post(broker, f"{url}/concurrency_status", {"page": 2, "limit": 1})
    assert ([queue["queue_id"] for queue in page["queues"]], page["pages"]) == ([mine["id"]], 2)
    for bad in ({"page": 0}, {"limit": 201}, {"flow_run_limit": -1}):
        assert broker.http.post(f"{url}/concurrency_status", json=bad).status_code == 422


def test_polling_a_pool_by_priority_with_a_claim(broker: Host) -> None:
    pool = a_pool(broker)
    url = f"/api/work_pools/{pool['name']}"
    first = post(broker, f"{url}/queues", {"name": "first", "priority": 1})
    low, high = insert_flow_runs(
        broker.path,
        {"work_queue_id": pool["default_queue_id"], "due": 0},
        {"work_queue_id": first["id"], "due": SECOND},
    )
    both = broker.http.post(f"{url}/get_scheduled_flow_runs", json={"claim_seconds": 60}).json()
    assert [run["flow_run"]["id"] for run in both] == [high, low]
    assert [run["work_queue_id"] for run in both] == [first["id"], pool["default_queue_id"]]
    assert {run["work_pool_id"] for run in both} == {pool["id"]}
    assert broker.http.post(f"{url}/get_scheduled_flow_runs").json() == []


def test_the_services_are_shown(broker: Host) -> None:
    shown = {service["name"]: service for service in broker.http.get("/api/admin/services").json()}
    assert set(shown) == {
        "auditor",
        "due_runs",
        "expiry",
        "heartbeat",
        "late_runs",
        "lost_sessions",
        "queue_status",
        "retention",
        "unserved_keys",
    }
    assert {name: service["enabled"] for name, service in shown.items() if not service["enabled"]} == {
        "retention": False,
        "late_runs": False,  # by the settings of these tests
    }
    assert shown["late_runs"]["interval_seconds"] == 5.0
