"""The subscription socket, as scripted workers drive it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from runlane_broker.core import pace, taking
from runlane_broker.core.events import Reporter
from runlane_broker.gateway import talk
from runlane_broker.prefect.reading import read_event

from .sockets import PATIENCE, Peer, world
from .test_events import event


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_a_worker_gets_one_run_for_each_acknowledgement(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            ids = [await w.create() for _ in range(3)]
            first = await worker.hear()
            assert first["id"] == ids[0]
            assert first["state"]["type"] == "SCHEDULED"
            assert first["state"]["state_details"]["task_parameters_id"].endswith("0a")
            assert await worker.hears_nothing()
            await worker.ack()
            assert [await worker.take(), await worker.take()] == ids[1:]
            assert (await w.run(ids[2])).state.name == "Pending"

    run(main())


def test_acknowledgements_of_nothing_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost everybody time, and no worker has many."""
    monkeypatch.setattr(talk, "BURST", 50.0)
    monkeypatch.setattr(talk, "RATE", 0.0)

    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            for _ in range(60):
                run_id = await w.create()
                assert await worker.take() == run_id
                await w.set_state(run_id, "COMPLETED")
            for _ in range(51):
                await worker.ack()
            assert await worker.closed() == (1013, "too many acknowledgements of nothing")

    run(main())


def named(*run_ids: str, name: str = "wait_for") -> dict[str, Any]:
    return {name: [{"input_type": "task_run", "id": run_id} for run_id in run_ids]}


def test_a_run_is_withheld_until_what_it_is_given_has_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer("up", "down") as worker:
            up = [await w.create("up") for _ in range(2)]
            down = await w.create("down", task_inputs=named(*up, "0190a000-0000-7000-8000-000000000000"))
            assert [await worker.take(), await worker.take()] == up
            await w.set_state(up[0], "COMPLETED")
            assert await worker.hears_nothing()
            assert (await w.run(down)).state.name == "Scheduled"
            await w.http.delete(f"/api/task_runs/{up[1]}")
            assert await worker.take() == down
            after = await w.create("down", task_inputs=named(up[0], name="x"))
            assert await worker.take() == after
            child = await w.create("down", task_inputs=named(after, name="__parents__"))
            assert await worker.take() == child

    run(main())


def test_what_waits_for_runs_is_found_again_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w:
            up, other = await w.create("up"), await w.create("up")
            first = await w.create("down", task_inputs=named(up))
            second = await w.create("down", task_inputs=named(other))
            w.core.waiting._awaited.clear()  # as if the broker were killed between the two commits
            await w.set_state(up, "COMPLETED", data=1)
        async with world(tmp_path / "db") as w, w.peer("down") as worker:
            assert await worker.take() == first
            assert await worker.hears_nothing()
            await w.set_state(other, "CANCELLED")
            assert await worker.take() == second

    run(main())


# --- The handshake, and its end ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        (['{"type": "subscribe"}'], 1008, "'auth'"),
        (["what"], 4001, "JSON object"),
        (["[]"], 4001, "JSON object"),
        ([b"{}"], 4001, "binary"),
        ([{"type": "auth", "token": None}, {"type": "ack"}], 4001, "'subscribe'"),
        ([{"type": "auth", "token": None}, {"type": "subscribe", "client_id": "c"}], 4001, "'keys'"),
        ([{"type": "auth"}, {"type": "subscribe", "keys": [], "client_id": "c"}], 4001, "'keys'"),
        ([{"type": "auth"}, {"type": "subscribe", "keys": [[]], "client_id": "c"}], 4001, "'keys'"),
        ([{"type": "auth"}, {"type": "subscribe", "keys": ["k"] * 257, "client_id": "c"}], 4001, "at most 256"),
        ([{"type": "auth"}, {"type": "subscribe", "keys": ["queue p q"], "client_id": "c"}], 4001, "work queues"),
        ([{"type": "auth"}, {"type": "subscribe", "keys": ["k"]}], 4001, "'client_id'"),
        ([{"type": "auth"}, '{"type": "subscribe", "keys": ["k"], "client_id": "\\ud800"}'], 4001, "JSON"),
        ([{"type": "auth"}, {"type": "subscribe", "keys": ["k"], "client_id": "c"}, {"type": "x"}], 4001, "'ack'"),
    ],
)
def test_what_may_not_be_said_ends_with_a_reason(
    tmp_path: Path, messages: list[Any], code: int, reason: str
) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.connected() as peer:
            await peer.say(*messages)
            if len(messages) > 1:
                assert await peer.hear() == {"type": "auth_success"}
            found, said = await peer.closed()
            assert (found, reason in said) == (code, True), said

    run(main())


def test_a_token_is_asked_for_where_there_is_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db", token="user:a-password-of-some-length") as w:
            for token, said in ((None, "needs a token"), ("user:wrong", "not valid")):
                async with w.connected() as peer:
                    await peer.say({"type": "auth", "token": token})
                    code, reason = await peer.closed()
                    assert (code, said in reason) == (1008, True)
            async with w.connected(None) as peer:
                assert (await peer.closed())[0] == 1008
            async with w.peer() as peer:
                run_id = await w.create()
                assert await peer.take() == run_id

    run(main())


def test_an_old_client_says_no_subprotocol_and_no_auth(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.connected(None) as peer:
            await peer.say({"type": "subscribe", "keys": ["k"], "client_id": "c"})
            run_id = await w.create()
            assert await peer.take() == run_id

    run(main())


def test_a_broker_that_stops_says_come_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as after:
            async with world(tmp_path / "db") as w:
                worker = await after.enter_async_context(w.peer())
                run_id = await w.create()
                assert await worker.take() == run_id
            assert (await worker.closed())[0] == 1012

    run(main())


# --- Nothing is lost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["what", "[]", b"\0", {"type": "nack"}, {"type": "quit"}, None])
def test_what_was_not_acknowledged_goes_to_somebody_else_at_once(tmp_path: Path, answer: Any) -> None:
    async def main() -> None:
        async with world(tmp_path / "db", resume=600.0) as w, w.peer() as worker:
            run_id = await w.create()
            assert (await worker.hear())["id"] == run_id
            if answer is None:
                worker.cut()
            else:
                await worker.say(answer)
                assert (await worker.closed())[0] == (1000 if answer == {"type": "quit"} else 4001)
            async with w.peer(client_id="host-2") as other:
                again = await other.hear()
                assert (again["id"], again["attempt"]) == (run_id, 1)
                assert again["state"]["state_details"]["task_parameters_id"].endswith("0a")
                assert (await w.run(run_id)).losses == 0

    run(main())


def test_what_was_reported_has_arrived_though_its_acknowledgement_has_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db", resume=60) as w:
            async with w.peer() as worker:
                run_id = await w.create()
                await worker.hear()
                await w.set_state(run_id, "RUNNING")
                worker.cut()
            async with w.peer() as again:
                following = await w.create()
                assert await again.take() == following
            assert (await w.run(run_id)).state.name == "Running"

    run(main())


def test_what_a_dead_worker_had_acknowledged_goes_to_somebody_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db", resume=0.3) as w, w.peer() as worker:
            ids = [await w.create() for _ in range(2)]
            assert await worker.take() == ids[0]
            await w.set_state(ids[0], "PENDING")
            await w.set_state(ids[0], "RUNNING")
            assert await worker.take() == ids[1]
            worker.cut()
            async with w.peer(client_id="host-2") as other:
                assert {await other.take(), await other.take()} == set(ids)
            assert (await w.states(ids[0]))[-2:] == ["Requeued", "Pending"]

    run(main())


def test_who_has_lost_his_runs_reports_for_nobody_else(tmp_path: Path) -> None:
    """His connection for events is another one, and goes on."""

    async def main() -> None:
        async with world(tmp_path / "db", resume=0.2) as w:
            reporter = w.core.events.reporter()
            async with w.peer(client_id="1") as worker:
                lost = await w.create()
                assert await worker.take() == lost
                await says(reporter, lost, "RUNNING")
                worker.cut()
            async with w.peer(client_id="2") as other:
                assert await other.take() == lost
                await says(reporter, lost, "RUNNING", "Retrying")
                assert (await w.run(lost)).state.name == "Pending"
                async with w.peer(client_id="1") as worker:
                    own = await w.create()
                    assert await worker.take() == own
                    await says(reporter, own, "RUNNING")
                    assert (await w.run(own)).state.name == "Running"

    run(main())


async def says(reporter: Reporter, run_id: str, type_: str, name: str | None = None) -> None:
    """Report a state, over a connection for events."""
    said = read_event(json.dumps(event(run_id, type_, name)).encode())
    assert said is not None
    await reporter.record([said])


def test_who_was_away_altogether_is_taken_for_himself_again(tmp_path: Path) -> None:
    """The first that he reports on his new connection for events is the end of a run that another has now."""

    async def main() -> None:
        async with world(tmp_path / "db", resume=0.2) as w:
            async with w.peer(client_id="1") as worker:
                lost = await w.create()
                assert await worker.take() == lost
                worker.cut()
            async with w.peer(client_id="2") as other:
                assert await other.take() == lost
                reporter = w.core.events.reporter()
                await says(reporter, lost, "COMPLETED")
                assert (await w.run(lost)).state.name == "Completed"
                async with w.peer("own", client_id="1") as worker:
                    own = await w.create("own")
                    assert await worker.take() == own
                    await says(reporter, own, "RUNNING")
                    assert (await w.run(own)).state.name == "Running"

    run(main())


def test_a_process_that_is_back_at_once_keeps_what_it_has(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db", resume=0.4) as w:
            async with w.peer() as worker:
                acknowledged = await w.create()
                assert await worker.take() == acknowledged
                await w.set_state(acknowledged, "PENDING")
                sent = await w.create()
                assert (await worker.hear())["id"] == sent
                worker.cut()
            async with w.peer() as worker:
                assert await worker.take() == sent
                await w.set_state(sent, "PENDING")
                assert await worker.hears_nothing(0.6)
                assert (await w.run(acknowledged)).state.name == "Pending"
                assert (await w.run(acknowledged)).attempt == 1

    run(main())


def test_one_that_comes_later_is_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "SAME_PROCESS_SECONDS", -1.0)

    async def main() -> None:
        async with world(tmp_path / "db", resume=0.3) as w:
            async with w.peer() as worker:
                run_id = await w.create()
                assert await worker.take() == run_id
                worker.cut()
            async with w.peer() as worker:
                assert await worker.take() == run_id
                assert (await w.run(run_id)).losses == 1

    run(main())


def test_of_two_that_have_one_name_nobody_is_taken_for_the_other(tmp_path: Path) -> None:
    """As the containers of one host name have, each with a process 1. Both are cut, and the first is back."""

    async def main() -> None:
        async with world(tmp_path / "db", resume=0.7) as w:
            async with w.peer("a") as first, w.peer("b") as second:
                ids = [await w.create("a"), await w.create("b")]
                assert [await first.take(), await second.take()] == ids
                for run_id in ids:
                    await w.set_state(run_id, "RUNNING")
                first.cut()
                second.cut()
            async with asyncio.timeout(PATIENCE):
                while any(session.port for session in w.core.registry):
                    await asyncio.sleep(0.01)
            async with w.peer("a") as first, w.peer("b", client_id="other") as other:
                assert await other.take() == ids[1]
                assert await first.take() == ids[0]

    run(main())


def test_a_worker_outlives_its_broker(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            reported, acknowledged = await w.create(), await w.create()
            assert await worker.take() == reported
            await w.set_state(reported, "PENDING")
            await w.set_state(reported, "RUNNING")
            assert await worker.take() == acknowledged
            sent = await w.create()
            await w.set_state(acknowledged, "PENDING")
            assert (await worker.hear())["id"] == sent
        async with world(tmp_path / "db", resume=0.5) as w, w.peer() as worker:
            assert await worker.take() == sent  # it was not acknowledged, and may never have arrived
            assert await worker.hears_nothing(0.8)
            await w.set_state(reported, "COMPLETED")
            assert [(await w.run(run_id)).attempt for run_id in (reported, acknowledged)] == [1, 1]

    run(main())


def test_what_was_only_acknowledged_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    """It may wait for a slot of its worker, and would be executed twice."""

    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            reported, acknowledged = await w.create(), await w.create()
            assert await worker.take() == reported
            await w.set_state(reported, "PENDING")
            assert await worker.take() == acknowledged
            await worker.hears_nothing()
        async with world(tmp_path / "db", resume=0.5) as w, w.peer() as worker, w.peer(client_id="2") as other:
            assert await worker.hears_nothing(0.8)
            assert await other.hears_nothing()
            await w.set_state(acknowledged, "COMPLETED")
            assert (await w.run(acknowledged)).attempt == 1

    run(main())


def test_a_full_worker_is_known_as_such_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            running, acknowledged = await w.create(), await w.create()
            assert await worker.take() == running
            await w.set_state(running, "RUNNING")
            assert await worker.take() == acknowledged
            await worker.hears_nothing()
        async with world(tmp_path / "db", resume=60) as w, w.peer() as worker:
            following = await w.create(dynamic_key="following")
            assert await worker.hears_nothing(0.5)
            await w.set_state(acknowledged, "RUNNING")
            assert await worker.take() == following

    run(main())


def test_everything_queued_is_delivered_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w:
            ids = [await w.create() for _ in range(200)]
        async with world(tmp_path / "db") as w, w.peer() as worker:
            assert [await worker.take() for _ in ids] == ids

    run(main())


# --- Who gets what ----------------------------------------------------------------------------------------------


def test_a_full_worker_hoards_nothing_while_another_idles(tmp_path: Path) -> None:
    """Both have one slot, and acknowledge before they have it."""

    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer(client_id="host-1") as full:
            ids = [await w.create() for _ in range(4)]
            assert await full.take() == ids[0]
            await w.set_state(ids[0], "PENDING")
            assert await full.take() == ids[1]  # which waits for the slot
            assert await full.hears_nothing()
            async with w.peer(client_id="host-2") as idle:
                for run_id in ids[2:]:
                    assert await idle.take() == run_id
                    await w.set_state(run_id, "PENDING")
                    await w.set_state(run_id, "COMPLETED")
                await w.set_state(ids[0], "COMPLETED")
                await w.set_state(ids[1], "PENDING")
                last = await w.create()
                assert last in {await take_first(full, idle)}

    run(main())


async def take_first(*peers: Peer) -> str:
    """Return the run that one of these is given."""
    taking = [asyncio.create_task(peer.take()) for peer in peers]
    done, rest = await asyncio.wait(taking, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    return done.pop().result()


def test_a_worker_that_drops_a_run_is_not_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "PATIENCE_SECONDS", 0.05)

    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            first, dropped, last = [await w.create() for _ in range(3)]
            assert await worker.take() == first
            await w.set_state(first, "PENDING")
            assert await worker.take() == dropped
            assert await worker.hears_nothing()
            await w.set_state(first, "COMPLETED")
            assert await worker.take() == last

    run(main())


def test_no_key_starves(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer("a", "b", "c") as worker:
            async with w.peer("a", client_id="x"):
                for key in "aaaaaaaabbbbbbbbc":
                    await w.create(key)
            taken = [(await worker.hear())["task_key"]]
            while "c" not in taken:
                await worker.ack()
                taken.append((await worker.hear())["task_key"])
            assert len(taken) <= 6

    run(main())


def test_a_run_that_is_deleted_or_over_makes_room(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            ids = [await w.create() for _ in range(3)]
            assert await worker.take() == ids[0]
            await w.set_state(ids[0], "PENDING")
            assert await worker.take() == ids[1]
            assert await worker.hears_nothing()
            assert (await w.http.delete(f"/api/task_runs/{ids[1]}")).status_code == 204
            await w.set_state(ids[0], "COMPLETED")
            assert await worker.take() == ids[2]
            for _ in range(3):
                await worker.ack()  # of nothing
            await w.set_state(ids[2], "PENDING")
            last = await w.create()
            assert await worker.take() == last

    run(main())


def test_a_failure_with_retries_left_stays_with_its_worker(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db", resume=0.3) as w, w.peer() as worker:
            run_id = await w.create(empirical_policy={"retries": 1, "retry_delay": 0})
            assert await worker.take() == run_id
            await w.set_state(run_id, "PENDING")
            await w.set_state(run_id, "RUNNING")
            answer = await w.set_state(run_id, "FAILED")
            assert (answer["status"], answer["state"]["name"]) == ("REJECT", "AwaitingRetry")
            assert await worker.hears_nothing()
            assert (await w.set_state(run_id, "RUNNING"))["state"]["name"] == "Retrying"
            assert (await w.set_state(run_id, "FAILED"))["status"] == "ACCEPT"
            waiting = await w.create(empirical_policy={"retries": 1, "retry_delay": 0})
            assert await worker.take() == waiting
            for state in ("PENDING", "RUNNING", "FAILED"):
                await w.set_state(waiting, state)
            worker.cut()  # while it waits for the retry
            async with w.peer(client_id="host-2") as other:
                assert await w.eventually(waiting, "Requeued", "Pending")
                assert await other.take() == waiting

    run(main())
