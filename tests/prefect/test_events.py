"""The sockets of events, with peers that say whatever a test wants."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from runlane_broker.gateway import talk
from runlane_broker.prefect import events_out, feed
from runlane_broker.storage.operations.reporting import RecordReports
from runlane_broker.storage.queue_records import queue_key
from tests.edges.harness import PATIENCE, TOKEN, Host
from tests.fuzz import raw
from tests.support import Gate

ENDS = [f"prefect.task-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled")]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("events"))
    host.start()
    yield host
    host.stop()


@contextmanager
def dialled(host: Host, way: str, token: str | None = None) -> Iterator[ClientConnection]:
    """A socket that has said who it is."""
    url = f"{host.url.replace('http', 'ws')}/api/events/{way}"
    with connect(url, subprotocols=[Subprotocol("prefect")], proxy=None, open_timeout=PATIENCE) as socket:
        socket.send(json.dumps({"type": "auth", "token": token}))
        yield socket


@contextmanager
def opened(host: Host, way: str, token: str | None = None) -> Iterator[ClientConnection]:
    """A socket that was let in."""
    with dialled(host, way, token) as socket:
        assert json.loads(socket.recv(PATIENCE)) == {"type": "auth_success"}
        yield socket


def event(run_id: str, type_: str, name: str | None = None, *, at: float = 0.0, **fields: Any) -> dict[str, Any]:
    """A state that began `at` seconds from now."""
    occurred = datetime.now(UTC) + timedelta(seconds=at)
    return {
        "id": str(uuid4()),
        "occurred": occurred.isoformat(),
        "event": f"prefect.task-run.{name or type_.title()}",
        "resource": {"prefect.resource.id": f"prefect.task-run.{run_id}", "prefect.orchestration": "client"},
        "payload": {
            "validated_state": {"type": type_, "name": name or type_.title(), "state_details": {}},
            "task_run": {"task_key": "k-1", "dynamic_key": f"k-1-{run_id}", "tags": ["t"]},
        },
        "related": [],
        **fields,
    }


def report(host: Host, *events: dict[str, Any]) -> None:
    """Send events; returns when they are recorded."""
    with opened(host, "in") as socket:
        for one in events:
            socket.send(json.dumps(one))
        assert socket.ping().wait(PATIENCE)


def states(host: Host, run_id: str) -> list[str]:
    return [one["name"] for one in host.http.get(f"/api/task_run_states/?task_run_id={run_id}").json()]


def state(host: Host, run_id: str) -> str:
    return host.http.get(f"/api/task_runs/{run_id}").json()["state_name"]


# --- In -------------------------------------------------------------------------------------------------------


def test_a_run_that_nobody_has_created_is_there_with_its_first_report(host: Host) -> None:
    run_id = str(uuid4())
    report(host, event(run_id, "PENDING"), event(run_id, "RUNNING"), event(run_id, "COMPLETED"))
    run = host.http.get(f"/api/task_runs/{run_id}").json()
    assert (run["state_name"], run["task_key"], run["tags"], run["run_count"]) == ("Completed", "k-1", ["t"], 1)
    assert states(host, run_id) == ["Pending", "Running", "Completed"]


def test_the_same_event_twice_is_one(host: Host) -> None:
    run_id = str(uuid4())
    events = [event(run_id, "PENDING"), event(run_id, "RUNNING")]
    report(host, *events)
    report(host, *events)
    assert states(host, run_id) == ["Pending", "Running"]


def test_what_is_overtaken_goes_into_the_history_only(host: Host) -> None:
    run_id = str(uuid4())
    report(host, event(run_id, "RUNNING", at=-1), event(run_id, "PENDING", at=-2))
    assert state(host, run_id) == "Running"
    assert states(host, run_id) == ["Pending", "Running"]


@pytest.mark.parametrize("late", ["RUNNING", "PENDING", "FAILED", "SCHEDULED"])
def test_an_end_stays(host: Host, late: str) -> None:
    run_id = str(uuid4())
    report(host, event(run_id, "COMPLETED", at=-5), event(run_id, late))
    assert state(host, run_id) == "Completed"
    assert len(states(host, run_id)) == 2


def test_a_clock_that_is_ahead_dates_nothing_else(host: Host) -> None:
    first, second = str(uuid4()), str(uuid4())
    report(host, event(first, "RUNNING", at=3600))
    report(host, event(second, "RUNNING"))
    shown = host.http.get(f"/api/task_runs/{second}").json()["state"]["timestamp"]
    assert datetime.fromisoformat(shown) < datetime.now(UTC) + timedelta(seconds=60)


def test_a_clock_that_was_never_set_dates_the_run_as_it_dates_the_history(host: Host) -> None:
    run_id = str(uuid4())
    report(host, {**event(run_id, "RUNNING"), "occurred": "0001-01-01T00:00:00Z"})
    (only,) = host.http.get(f"/api/task_run_states/?task_run_id={run_id}").json()
    run = host.http.get(f"/api/task_runs/{run_id}").json()
    assert run["state"]["timestamp"] == only["timestamp"] == run["start_time"]


def test_a_retry_that_its_client_waits_for_is_not_handed_out(host: Host) -> None:
    run_id = str(uuid4())
    report(host, event(run_id, "RUNNING", at=-2), event(run_id, "SCHEDULED", "AwaitingRetry"))
    assert state(host, run_id) == "AwaitingRetry"
    assert host.core.dispatcher.has_demand("k-1") is False
    report(host, event(run_id, "RUNNING", "Retrying"), event(run_id, "FAILED", "TimedOut"))
    assert state(host, run_id) == "TimedOut"


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "nonsense",
        "{}",
        json.dumps(event("no-id", "RUNNING")),
        json.dumps(event(str(uuid4()), "RUNNING", payload={})),
        json.dumps({**event(str(uuid4()), "RUNNING"), "occurred": "yesterday"}),
        json.dumps({**event(str(uuid4()), "RUNNING"), "event": "prefect.flow-run.Running"}),
    ],
)
def test_what_is_no_state_of_a_task_run_harms_nothing(host: Host, text: str) -> None:
    run_id = str(uuid4())
    with opened(host, "in") as socket:
        socket.send(text)
        socket.send(json.dumps(event(run_id, "RUNNING")))
        assert socket.ping().wait(PATIENCE)
    assert state(host, run_id) == "Running"
    assert host.log.faults() == []


@pytest.mark.parametrize(
    "policy",
    [
        {"retries": 2**64},
        {"retries": -1},
        {"retries": 2, "retry_delay": 1e308},
        {"retries": 2, "retry_delay": [-1e308, 5]},
        {"retries": 2, "retry_delay": 1, "retry_jitter_factor": 1e308},
    ],
)
def test_numbers_that_nobody_can_mean_hold_nothing_up(host: Host, policy: dict[str, Any]) -> None:
    run_id = str(uuid4())
    odd = event(run_id, "RUNNING", at=-1)
    odd["payload"]["task_run"]["empirical_policy"] = policy
    report(host, odd)
    failed = {"state": {"type": "FAILED"}}
    assert host.http.post(f"/api/task_runs/{run_id}/set_state", json=failed).is_success
    assert host.http.get(f"/api/task_runs/{run_id}").is_success
    assert host.log.faults() == []


def test_a_task_run_is_in_no_work_queue(host: Host) -> None:
    run_id = str(uuid4())
    odd = event(run_id, "RUNNING")
    odd["payload"]["task_run"]["task_key"] = queue_key(str(uuid4()), str(uuid4()))
    report(host, odd)
    assert host.http.get(f"/api/task_runs/{run_id}").json()["task_key"] == "unknown"


def test_an_event_may_be_as_large_as_a_prefect_server_takes_it(host: Host) -> None:
    run_id = str(uuid4())
    report(host, event(run_id, "RUNNING"), event(run_id, "COMPLETED", others="x" * 1_500_000))
    assert states(host, run_id) == ["Running", "Completed"]
    with opened(host, "in") as socket:
        socket.send(json.dumps(event(run_id, "COMPLETED", others="x" * 2_000_000)))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_events_without_a_socket(host: Host) -> None:
    run_id = str(uuid4())
    assert host.http.post("/api/events", json=[event(run_id, "RUNNING")]).status_code == 204
    assert state(host, run_id) == "Running"


@contextmanager
def opened_otherwise(host: Host) -> Iterator[ClientConnection]:
    """A socket that offers another subprotocol: nobody asks who it is."""
    url = f"{host.url.replace('http', 'ws')}/api/events/in"
    with connect(url, subprotocols=[Subprotocol("other")], proxy=None, open_timeout=PATIENCE) as socket:
        yield socket


@pytest.mark.parametrize("opens", [lambda host: opened(host, "in"), opened_otherwise])
def test_a_ping_is_answered_after_the_commit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opens: Callable[[Host], AbstractContextManager[ClientConnection]],
) -> None:
    gate = Gate()
    execute = RecordReports.execute

    def held(self: RecordReports, tx: Any) -> Any:
        gate()
        return execute(self, tx)

    monkeypatch.setattr(RecordReports, "execute", held)
    host = Host(tmp_path)
    host.start()
    try:
        with opens(host) as socket:
            assert socket.ping().wait(PATIENCE), "nothing waits yet"
            socket.send(json.dumps(event(str(uuid4()), "RUNNING")))
            assert gate._reached.wait(PATIENCE)
            pong = socket.ping()
            assert not pong.wait(0.2)
            gate.open()
            assert pong.wait(PATIENCE)
    finally:
        gate.open()
        host.stop()


def test_a_mistake_of_the_broker_s_own_stands_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client comes back, and says the same again: somebody must hear of it."""

    def fail(_operation: RecordReports, _tx: Any) -> Any:
        raise ValueError("a mistake")

    monkeypatch.setattr(RecordReports, "execute", fail)
    host = Host(tmp_path)
    host.start()
    try:
        with opened(host, "in") as socket:
            socket.send(json.dumps(event(str(uuid4()), "RUNNING")))
            with pytest.raises(ConnectionClosed):
                socket.recv(PATIENCE)
        host.wait(host._settled())
        assert ["a mistake" in fault for fault in host.log.faults()] == [True]
    finally:
        host.stop()


# --- Out ------------------------------------------------------------------------------------------------------


@contextmanager
def subscribed(host: Host, **wanted: Any) -> Iterator[ClientConnection]:
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    with opened(host, "out") as socket:
        socket.send(json.dumps({"type": "filter", "filter": {"occurred": {"since": since}, **wanted}}))
        yield socket


def next_of(socket: ClientConnection, run_id: str) -> dict[str, Any]:
    while (found := json.loads(socket.recv(PATIENCE))["event"])["resource"]["prefect.resource.id"][17:] != run_id:
        pass
    return found


@pytest.mark.parametrize(
    ("type_", "name"), [("COMPLETED", "Cached"), ("FAILED", "TimedOut"), ("CRASHED", "Crashed")]
)
@pytest.mark.parametrize("before", [True, False])
def test_whoever_asks_for_the_four_ends_hears_of_every_end(
    host: Host, type_: str, name: str, before: bool
) -> None:
    run_id = str(uuid4())
    end = event(run_id, type_, name)
    if before:
        report(host, end)
    with subscribed(host, event={"name": ENDS, "prefix": None}) as socket:
        if not before:
            report(host, end)
        found = next_of(socket, run_id)
    assert (found["id"], found["event"]) == (end["id"], f"prefect.task-run.{name}")
    assert found["payload"]["validated_state"]["type"] == type_


def test_what_ends_while_the_past_is_told_is_told_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly it is read for those who wait for it: it has been found in the past by then."""
    reader = type(host.core.store.task_runs)

    def gated(name: str) -> Callable[[], Any]:
        gate, read = asyncio.Event(), getattr(reader, name)

        async def wait(self: Any, *args: Any) -> Any:
            await gate.wait()
            return await read(self, *args)

        monkeypatch.setattr(reader, name, wait)
        return lambda: host.loop.call_soon_threadsafe(gate.set)

    let_past, let_present = gated("ended"), gated("those")
    runs = [str(uuid4()) for _ in range(3 * feed._PAGE)]
    with subscribed(host, event={"name": ENDS}) as socket:
        assert socket.ping().wait(PATIENCE)
        report(host, *(event(run_id, "COMPLETED") for run_id in runs))
        let_past()
        assert next_of(socket, runs[-1])
        let_present()
        last = str(uuid4())
        report(host, event(last, "COMPLETED"))
        told = json.loads(socket.recv(PATIENCE))["event"]["resource"]["prefect.resource.id"]
    assert told == f"prefect.task-run.{last}"


def test_an_end_that_waits_to_be_told_keeps_no_payload(host: Host) -> None:
    run_id = str(uuid4())
    report(host, event(run_id, "COMPLETED"))
    reading = asyncio.run_coroutine_threadsafe(host.core.store.run_by_id(run_id), host.loop)
    run = reading.result(PATIENCE)
    assert run is not None
    payload = bytes(100_000)
    before = sys.getrefcount(payload)
    waiting = feed.EndEvent(replace(run, parameters=payload, result=payload, error=payload))
    assert run_id in waiting.message
    assert sys.getrefcount(payload) == before


def test_an_end_that_is_recorded_late_is_told_to_who_was_away_meanwhile(host: Host) -> None:
    long_ago, run_id, since = str(uuid4()), str(uuid4()), datetime.now(UTC)
    report(host, event(run_id, "COMPLETED", at=-600))
    with subscribed(host, event={"name": ENDS}) as socket:
        assert next_of(socket, run_id)["event"] == "prefect.task-run.Completed"
    later = {"occurred": {"since": (since + timedelta(minutes=5)).isoformat()}, "event": {"name": ENDS}}
    with subscribed(host, **later) as socket:
        report(host, event(long_ago, "FAILED", at=-600))
        found = json.loads(socket.recv(PATIENCE))["event"]
    assert found["resource"]["prefect.resource.id"] == f"prefect.task-run.{long_ago}"


def test_the_end_of_a_run_that_was_set_over_http_is_told(host: Host) -> None:
    run_id = host.http.post("/api/task_runs/", json={"task_key": "k", "state": {"type": "PENDING"}}).json()["id"]
    with subscribed(host, event={"name": ENDS}) as socket:
        body = {"state": {"type": "COMPLETED", "data": {"a": 1}}, "force": True}
        assert host.http.post(f"/api/task_runs/{run_id}/set_state", json=body).status_code == 201
        assert next_of(socket, run_id)["payload"]["validated_state"]["data"] == {"a": 1}


def test_other_names_are_taken_as_they_are(host: Host) -> None:
    failed, completed = str(uuid4()), str(uuid4())
    with subscribed(host, event={"name": ["prefect.task-run.Failed"]}) as socket:
        report(host, event(completed, "COMPLETED"), event(failed, "FAILED"))
        while (found := json.loads(socket.recv(PATIENCE))["event"])["event"] == "prefect.task-run.Failed":
            if found["resource"]["prefect.resource.id"].endswith(failed):
                return
    raise AssertionError(found)


def test_a_filter_that_is_not_looked_at_is_refused(host: Host) -> None:
    with subscribed(host, text={"query": "x"}) as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Filtering by text is not supported")


# --- Who may come in ------------------------------------------------------------------------------------------


def test_the_auth_string_is_the_token(tmp_path: Path) -> None:
    host = Host(tmp_path, TOKEN)
    host.start()
    try:
        with opened(host, "in", TOKEN):
            pass
        for token, reason in ((None, "Auth required but no token provided"), ("wrong", "Invalid token")):
            with dialled(host, "out", token) as socket, pytest.raises(ConnectionClosed) as closed:
                socket.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, reason)
        for shown, status in ((TOKEN, 200), ("wrong", 401)):
            basic = {"Authorization": f"Basic {b64encode(shown.encode()).decode()}"}
            assert host.http.get("/api/admin/storage", headers=basic).status_code == status
        assert host.http.get("/api/admin/storage", headers={"Authorization": "Basic ?"}).status_code == 401
    finally:
        host.stop()


# --- In vain --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["in", "out"])
def test_who_talks_in_vain_without_end_is_told_to_come_back(
    host: Host, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "BURST", 400.0 * talk.STRANGER)
    monkeypatch.setattr(talk, "RATE", 0.001)
    with opened(host, way) as socket:
        if way == "out":
            socket.send('{"type": "filter", "filter": {}}')
        with suppress(ConnectionClosed):
            for _ in range(200):
                socket.send('{"id": 1}')
        with suppress(ConnectionClosed):
            while True:
                socket.recv(PATIENCE)
        assert socket.close_code == 1013


def test_the_past_is_not_read_for_who_takes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """And who takes nothing is cut, although all that it was sent is on its way."""
    asked: list[int] = []
    before = feed.EndFeed.before

    def noting(self: feed.EndFeed, since: int) -> AsyncGenerator[list[feed.EndEvent]]:
        asked.append(since)
        return before(self, since)

    async def silent() -> None:
        peer = await raw.connect(host.port, "events out")
        await peer.send(b'{"type": "auth", "token": null}', b'{"type": "filter", "filter": {}, "backfill": true}')
        try:
            async with asyncio.timeout(PATIENCE):
                await peer.ended()  # bytes are taken, but no ping is answered
        finally:
            peer.close()
            await asyncio.sleep(0)

    monkeypatch.setattr(feed.EndFeed, "before", noting)
    monkeypatch.setattr(events_out, "_TAKE_SECONDS", 0.05)
    asyncio.run(silent())
    assert asked == []
    monkeypatch.setattr(events_out, "_TAKE_SECONDS", PATIENCE)
    run_id = str(uuid4())
    with opened(host, "in") as socket:
        socket.send(json.dumps(event(run_id, "COMPLETED")))
        assert socket.ping().wait(PATIENCE)
    with opened(host, "out") as socket:
        socket.send('{"type": "filter", "filter": {}, "backfill": true}')
        while f"prefect.task-run.{run_id}" not in str(socket.recv(PATIENCE)):
            pass
    assert len(asked) == 1


def test_a_few_events_that_are_not_understood_close_nothing(host: Host) -> None:
    run_id = str(uuid4())
    with opened(host, "in") as socket:
        for _ in range(50):
            socket.send('{"id": 1}')
        socket.send(json.dumps(event(run_id, "RUNNING")))
        assert socket.ping().wait(PATIENCE)
    assert state(host, run_id) == "Running"
