"""Work queues at the edges: subscribing to them, who serves them, and flow runs that are too large."""

from __future__ import annotations

from typing import Any

import pytest

from runlane.protocol import limits

from .harness import WORKER, Close, Host, authenticated, new_key, run


def _post(host: Host, path: str, body: Any) -> Any:
    answer = host.http.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


def _pool(host: Host) -> str:
    return _post(host, "/api/work_pools/", {"name": new_key()})["name"]


@pytest.mark.parametrize("what", ["no pool", "no queue", "a filter"])
def test_a_queue_that_cannot_be_served_is_refused_by_name(broker: Host, what: str) -> None:
    pool, name = _pool(broker), new_key()
    if what == "a filter":
        pool = _post(broker, "/api/work_queues/", {"name": name, "filter": {"tags": ["a"]}})["work_pool_name"]
    asked = f"{'nope' if what == 'no pool' else pool}/{name}"
    code, said = {
        "no pool": ("not_found", "there is no work pool 'nope'"),
        "no queue": ("not_found", f"there is no work queue {asked!r}"),
        "a filter": (
            "invalid_field",
            f"the work queue {asked!r} finds its runs by a filter, and can only be polled",
        ),
    }[what]

    async def main() -> None:
        async with authenticated(broker, WORKER) as peer:
            queues = [f"{pool}/default", asked]
            await peer.say({"type": "subscribe", "client_id": "edge", "keys": [], "queues": queues, "limit": 1})
            await peer.expect("error", code=code, message=said, field="queues[1]")
            assert await peer.closed() == Close(4001, f"subscribe was refused: {said}"[:120])

    run(main())
    assert broker.http.get(f"/api/work_pools/{pool}/queues/{name}").status_code == (
        200 if what == "a filter" else 404
    )


def test_the_queues_that_a_worker_serves_are_shown(broker: Host) -> None:
    pool = _pool(broker)

    async def main() -> None:
        async with authenticated(broker, WORKER) as peer:
            key = new_key()
            await peer.subscribe(key, queues=[f"{pool}/default"])
            (worker,) = _post(broker, "/api/task_workers/filter", {"task_worker_filter": {"task_keys": [key]}})
            assert (worker["task_keys"], worker["queues"]) == ([key], [f"{pool}/default"])

    run(main())


@pytest.mark.parametrize("field", ["parameters", "context", "job_variables"])
@pytest.mark.parametrize(
    ("size", "said"), [(limits.MAX_PAYLOAD_BYTES, None), (limits.MAX_PAYLOAD_BYTES + 1, "at most 524288")]
)
def test_a_flow_run_that_is_too_large_is_refused_by_field_and_limit(
    broker: Host, field: str, size: int, said: str | None
) -> None:
    flow = _post(broker, "/api/flows/", {"name": new_key()})["id"]
    value = "x" * (size - len('{"x":""}'))
    answer = broker.http.post("/api/flow_runs/", content=f'{{"flow_id":"{flow}","{field}":{{"x":"{value}"}}}}')
    if said is None:
        assert answer.status_code == 201
        return
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert detail["loc"] == ["body", field]
    assert said in detail["msg"]


def test_a_flow_run_beyond_a_mebibyte_is_refused_before_it_is_read(broker: Host) -> None:
    flow = _post(broker, "/api/flows/", {"name": new_key()})["id"]
    body = f'{{"flow_id":"{flow}","parameters":{{"x":"{"x" * (1 << 20)}"}}}}'
    answer = broker.http.post("/api/flow_runs/", content=body)
    assert (answer.status_code, answer.json()["detail"]) == (413, "the body has more than 1048576 bytes")
