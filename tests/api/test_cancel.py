"""Runs cancelled, and parked ones queued again, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from runlane.protocol.ids import uuid7
from tests.edges.harness import Host

from .examples import a_parked_run, a_task_run, unique


def waiting(host: Host, **fields: Any) -> Any:
    return a_task_run(host, state={"type": "SCHEDULED"}, **fields)


def state_of(host: Host, run_id: str) -> str:
    return host.http.get(f"/api/task_runs/{run_id}").json()["state"]["name"]


def test_a_run_is_cancelled_and_stays_so(broker: Host) -> None:
    run = waiting(broker)
    for _ in range(2):
        answer = broker.http.post(f"/api/task_runs/{run['id']}/cancel")
        assert (answer.status_code, answer.json()["type"], answer.json()["name"]) == (
            200,
            "CANCELLED",
            "Cancelled",
        )
    history = broker.http.get("/api/task_run_states/", params={"task_run_id": run["id"]}).json()
    assert [state["name"] for state in history] == ["Scheduled", "Cancelled"]


@pytest.mark.parametrize("what", ["cancel", "requeue"])
def test_what_there_is_not_is_not_found(broker: Host, what: str) -> None:
    assert broker.http.post(f"/api/task_runs/{uuid7()}/{what}").status_code == 404


@pytest.mark.parametrize("what", ["cancel", "requeue"])
@pytest.mark.parametrize("body", [{}, {"all": False}, {"task_runs": None}, {"task_run": {}}, {"all": 1}])
def test_nobody_cancels_everything_by_mistake(broker: Host, what: str, body: Any) -> None:
    run = waiting(broker)
    answer = broker.http.post(f"/api/task_runs/{what}", json=body)
    assert answer.status_code == 422, answer.text
    assert state_of(broker, run["id"]) == "Scheduled"


def test_runs_are_cancelled_by_filter(broker: Host) -> None:
    key = unique("cancel.key")
    runs = [waiting(broker, task_key=key, tags=[f"{n % 2}"]) for n in range(4)]
    odd = {"task_runs": {"task_key": {"any_": [key]}, "tags": {"all_": ["1"]}}}
    assert broker.http.post("/api/task_runs/cancel", json=odd).json() == {
        "cancelled": 2, "cancelling": 0, "more": False,
    }  # fmt: skip
    assert [state_of(broker, run["id"]) for run in runs] == ["Scheduled", "Cancelled"] * 2


def test_a_parked_run_is_queued_again_and_no_other(broker: Host) -> None:
    run = a_parked_run(broker)
    answer = broker.http.post(f"/api/task_runs/{run['id']}/requeue")
    assert (answer.status_code, answer.json()["type"], answer.json()["name"]) == (200, "SCHEDULED", "Requeued")
    answer = broker.http.post(f"/api/task_runs/{run['id']}/requeue")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_parked")
    assert "Requeued" in answer.json()["detail"]


def test_parked_runs_are_queued_again_by_filter(broker: Host) -> None:
    runs = [a_parked_run(broker), a_parked_run(broker)]
    chosen = {"task_runs": {"id": {"any_": [runs[0]["id"], waiting(broker)["id"]]}}}
    assert broker.http.post("/api/task_runs/requeue", json=chosen).json() == {"requeued": 1, "more": False}
    assert [state_of(broker, run["id"]) for run in runs] == ["Requeued", "Parked"]
