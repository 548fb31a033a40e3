"""What nobody should send: each is refused by name, and nothing is written."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from runlane.protocol.ids import uuid7
from runlane.protocol.states import StateType
from runlane_broker.schemas.base import InvalidRequest
from tests.edges.harness import Host

from .examples import a_task_run, post
from .test_contract import rows

RUN = {"task_key": "bad.input"}
NAIVE = "2026-03-01T08:00:00"
STRETCH = {"history_start": "2026-03-01T00:00:00Z", "history_end": "2026-03-02T00:00:00Z"}
HOUR = {"history_interval_seconds": 3600}

#: A path below /api, a body (JSON, or the bytes themselves), and where the mistake is.
BAD: list[tuple[str, Any, list[Any]]] = [
    # Creating
    ("task_runs/", {**RUN, "state": {"type": "SCHEDULED", "id": uuid7()}}, ["state", "id"]),
    ("task_runs/", {**RUN, "state": {"type": "SCHEDULED", "timestamp": "x"}}, ["state", "timestamp"]),
    (
        "task_runs/",
        {**RUN, "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": NAIVE}}},
        ["state", "state_details", "scheduled_time"],
    ),
    ("task_runs/", {**RUN, "expires": NAIVE}, ["expires"]),
    ("task_runs/", {**RUN, "cache_key": "x" * 2001}, ["cache_key"]),
    ("task_runs/", {**RUN, "flow_run_id": "x"}, ["flow_run_id"]),
    ("task_runs/", {**RUN, "labels": {"x": {}}}, ["labels"]),
    (
        "task_runs/",
        {**RUN, "task_inputs": {"x": [{"input_type": "x"}]}},
        ["task_inputs"],
    ),
    (
        "task_runs/",
        {**RUN, "empirical_policy": {"retry_delay": [1] * 51}},
        ["empirical_policy", "retry_delay"],
    ),
    ("task_runs/", {**RUN, "name": "a\0b"}, ["name"]),
    ("task_runs/", {**RUN, "tags": ["a", "b\0"]}, ["tags", 1]),
    ("task_runs/", {**RUN, "labels": {"a": "\0"}}, ["labels", "a"]),
    ("task_runs/", b'{"task_key":"bad.input","name":"\\ud800"}', []),
    ("task_runs/", b'{"task_key":"bad.input","tags":["\\udc00\\ud800"]}', []),
    ("task_runs/bulk", {"task_runs": []}, ["task_runs"]),
    ("task_runs/bulk", {"task_runs": [RUN] * 1001}, ["task_runs"]),
    ("task_runs/bulk", {"task_runs": [RUN, {**RUN, "priority": 10}]}, ["task_runs", 1, "priority"]),
    ("task_runs/bulk", {"task_runs": [RUN, {**RUN, "parameters": []}]}, ["task_runs", 1, "parameters"]),
    (
        "task_runs/bulk",
        {"task_runs": [RUN, {**RUN, "empirical_policy": {"retry_delay": [1] * 51}}]},
        ["task_runs", 1, "empirical_policy", "retry_delay"],
    ),
    ("flows/", {"name": "a/b"}, ["name"]),
    ("deployments/", {"name": "x", "flow_id": uuid7(), "schedules": [{}]}, ["schedules"]),
    ("deployments/", {"name": "x", "flow_id": uuid7(), "parameters": [1]}, ["parameters"]),
    ("concurrency_limits/", {"tag": "x", "concurrency_limit": -1}, ["concurrency_limit"]),
    ("concurrency_limits/", {"tag": "x", "concurrency_limit": 2**63}, ["concurrency_limit"]),
    # Filters
    ("task_runs/filter", {"task_runs": {"colour": {}}}, ["task_runs", "colour"]),
    ("task_runs/filter", {"task_runs": {"name": {"unlike_": "x"}}}, ["task_runs", "name", "unlike_"]),
    ("task_runs/filter", {"task_runs": {"operator": "xor_"}}, ["task_runs", "operator"]),
    ("task_runs/filter", {"task_runs": {"id": {"any_": ["x"]}}}, ["task_runs", "id", "any_", 0]),
    ("task_runs/filter", {"task_runs": {"id": {"any_": "x"}}}, ["task_runs", "id", "any_"]),
    (
        "task_runs/filter",
        {"task_runs": {"state": {"type": {"any_": ["x"]}}}},
        ["task_runs", "state", "type", "any_", 0],
    ),
    (
        "task_runs/filter",
        {"task_runs": {"start_time": {"before_": NAIVE}}},
        ["task_runs", "start_time", "before_"],
    ),
    ("task_runs/filter", {"task_runs": {"name": {"like_": "\0"}}}, ["task_runs", "name", "like_"]),
    ("task_runs/filter", {"task_runs": {"tags": {"all_": ["\0"]}}}, ["task_runs", "tags", "all_", 0]),
    ("task_runs/filter", b'{"task_runs":{"name":{"like_":"\\ud800"}}}', []),
    ("task_runs/filter", {"sort": "COLOUR_ASC"}, ["sort"]),
    ("task_runs/filter", {"limit": 201}, ["limit"]),
    ("task_runs/filter", {"offset": 10**20}, ["offset"]),
    ("task_runs/paginate", {"page": 0}, ["page"]),
    ("task_runs/paginate", {"page": 2**40}, ["page"]),
    ("task_runs/follow", {"cursor": "x"}, ["cursor"]),
    ("task_runs/follow", {"cursor": "é"}, ["cursor"]),
    ("flow_runs/count", {"work_pools": {"colour": 1}}, ["work_pools", "colour"]),
    # History
    ("task_runs/history", {}, ["history_start"]),
    ("task_runs/history", {**STRETCH}, ["history_interval_seconds"]),
    ("task_runs/history", {**STRETCH, "history_interval_seconds": 0.99}, ["history_interval_seconds"]),
    ("task_runs/history", {**STRETCH, "history_interval_seconds": 1e12}, ["history_interval_seconds"]),
    (
        "task_runs/history",
        {**HOUR, "history_start": STRETCH["history_end"], "history_end": STRETCH["history_start"]},
        ["history_end"],
    ),
    (
        "task_runs/history",
        {**HOUR, "history_start": "9999-12-31T00:00:00Z", "history_end": "9999-12-31T23:59:59Z"},
        ["history_end"],
    ),
    ("task_runs/history", {**HOUR, **STRETCH, "history_start": "soon"}, ["history_start"]),
]


@pytest.mark.parametrize(
    ("path", "body", "place"), [pytest.param(*case, id=f"{case[0]} {'.'.join(map(str, case[2]))}") for case in BAD]
)
def test_it_is_refused_by_name(broker: Host, path: str, body: Any, place: list[Any]) -> None:
    before = rows(broker)
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = broker.http.post(f"/api/{path}", content=content)
    assert answer.status_code == 422, answer.text
    error = msgspec.json.decode(answer.content, type=InvalidRequest)
    assert error.detail[0].loc == ["body", *place]
    assert error.detail[0].msg
    assert rows(broker) == before


@pytest.mark.parametrize(
    ("path", "body", "place", "message"),
    [
        ("task_runs/", {**RUN, "flow_run_id": "x"}, ["flow_run_id"], "not a UUID"),
        ("work_pools/", {"name": "a/b"}, ["name"], "a name has 1 to 200 characters, and none of / % & > <"),
        (
            "task_runs/",
            {**RUN, "labels": {"x": {}}},
            ["labels"],
            "Expected `bool | int | float | str`, got `object`",
        ),
        ("task_runs/", {**RUN, "labels": {"x" * 201: 1}}, ["labels"], "a key: Expected `str` of length <= 200"),
        ("task_runs/", {**RUN, "tags": [1]}, ["tags", 0], "Expected `str`, got `int`"),
        ("task_runs/", {}, ["task_key"], "Object missing required field `task_key`"),
        ("task_runs/", b"", [], "a body is needed"),
        (
            "flows/filter",
            {"sort": "START_TIME_ASC"},
            ["sort"],
            "Invalid enum value 'START_TIME_ASC'; one of: NAME_ASC, NAME_DESC, CREATED_DESC, UPDATED_DESC",
        ),
        (
            "flows/filter",
            {"flow_runs": {"tags": {"operator": "xor_"}}},
            ["flow_runs", "tags", "operator"],
            "Invalid enum value 'xor_'; one of: and_, or_",
        ),
        (
            "flows/filter",
            {"flow_runs": {"state": {"type": {"any_": ["COMPLETED", "DONE"]}}}},
            ["flow_runs", "state", "type", "any_", 1],
            f"Invalid enum value 'DONE'; one of: {', '.join(StateType)}",
        ),
        (
            "task_runs/",
            {**RUN, "task_inputs": {"x": [{"input_type": "x"}]}},
            ["task_inputs"],
            "Invalid value 'x'; one of: task_run, flow_run, parameter, constant",
        ),
    ],
)
def test_it_is_said_what_is_wrong(broker: Host, path: str, body: Any, place: list[Any], message: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = broker.http.post(f"/api/{path}", content=content)
    assert answer.status_code == 422, answer.text
    (detail,) = msgspec.json.decode(answer.content, type=InvalidRequest).detail
    assert (detail.loc, detail.msg) == (["body", *place], message)


@pytest.mark.parametrize("size", [200, 2000])
def test_a_limit_says_what_prefect_says(broker: Host, size: int) -> None:
    answer = broker.http.post("/api/task_runs/filter", json={"limit": size})
    assert answer.status_code == (200 if size == 200 else 422)
    if size > 200:
        assert answer.json()["detail"][0]["msg"] == "Invalid limit: must be less than or equal to 200."


def test_states_that_are_too_much(broker: Host) -> None:
    run = a_task_run(broker)
    path = f"/api/task_runs/{run['id']}/set_state"
    before = rows(broker)
    for state, place in [
        ({}, ["state", "type"]),
        ({"type": "DONE"}, ["state", "type"]),
        ({"type": "RUNNING", "data": "x" * 600_000}, ["state", "data"]),
        ({"type": "RUNNING", "message": "x" * 10_001}, ["state", "message"]),
        ({"type": "RUNNING", "name": "\0"}, ["state", "name"]),
        ({"type": "RUNNING", "state_details": {"colour": 1}}, ["state", "state_details", "colour"]),
        (
            {"type": "SCHEDULED", "state_details": {"scheduled_time": NAIVE}},
            ["state", "state_details", "scheduled_time"],
        ),
    ]:
        answer = broker.http.post(path, json={"state": state})
        assert answer.status_code == 422, state
        assert answer.json()["detail"][0]["loc"] == ["body", *place]
    assert rows(broker) == before


def test_a_body_of_exactly_a_mebibyte_is_read_and_one_byte_more_is_not(broker: Host) -> None:
    body = json.dumps({**RUN, "parameters": {"x": "y" * 1000}})
    before = rows(broker)["task_run"]
    assert broker.http.post("/api/task_runs/", content=body.ljust(2**20)).status_code == 201
    assert broker.http.post("/api/task_runs/", content=body.ljust(2**20 + 1)).status_code == 413
    assert rows(broker)["task_run"] == before + 1


def test_a_payload_may_hold_what_text_may_not(broker: Host) -> None:
    content = b'{"task_key":"bad.input","parameters":{"x":"\\u0000"}}'
    answer = broker.http.post("/api/task_runs/", content=content)
    assert answer.status_code == 201
    assert answer.json()["parameters"] == {"x": "\0"}


def test_none_of_a_bulk_is_created_if_one_is_wrong(broker: Host) -> None:
    key = "bad.bulk"
    answer = broker.http.post("/api/task_runs/bulk", json={"task_runs": [{"task_key": key}, {"task_key": ""}]})
    assert answer.status_code == 422
    assert post(broker, "/api/task_runs/count", {"task_runs": {"task_key": {"any_": [key]}}}) == 0
