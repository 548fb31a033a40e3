"""What workers say of runs that they hold, held, never held, or hold no more; and sessions that come back."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from runlane.protocol import limits
from runlane.protocol.ids import uuid7

from .harness import (
    BROKEN,
    WORKER,
    Close,
    Frame,
    Host,
    assert_like,
    authenticated,
    new_key,
    new_run,
    producer,
    quit_,
    run,
    worker,
)
from .test_fields import headers_of


async def submitted(host: Host, *runs: Frame) -> None:
    async with producer(host) as sender:
        assert [answer["created"] for answer in await sender.submit(*runs)] == [True] * len(runs)


def lease(run_: Frame, attempt: int | None = None) -> Frame:
    return {"id": run_["id"], "attempt": run_["attempt"] if attempt is None else attempt}


def report(kind: str, lease_: Frame) -> Frame:
    extra: dict[str, Frame] = {
        "finished": {"state": {"type": "COMPLETED"}},
        "progress": {"current": 1},
        "started": {},
    }
    if kind == "release":
        return {"type": "release", "runs": [lease_]}
    return {"type": kind, **lease_, **extra[kind]}


REPORTS = ("started", "progress", "finished", "release")


# --- Leases that are not the worker's --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REPORTS)
@pytest.mark.parametrize(
    "whose", ["nobody's", "a waiting run's", "another worker's", "a wrong attempt of its own"]
)
def test_a_report_without_a_lease(broker: Host, kind: str, whose: str) -> None:
    """It changes nothing, frees no slot, and says so where an answer is owed."""
    key, other_key = new_key(), new_key()
    own, foreign, waiting, following = new_run(key), new_run(other_key), new_run("edge.nobody"), new_run(key)

    async def main() -> None:
        async with worker(broker, key) as peer, worker(broker, other_key) as other:
            await submitted(broker, own, foreign, waiting, following)
            (held,) = await peer.pushed()
            (others,) = await other.pushed()
            about = {
                "nobody's": {"id": uuid7(), "attempt": 1},
                "a waiting run's": {"id": waiting["id"], "attempt": 1},
                "another worker's": lease(others),
                "a wrong attempt of its own": lease(held, 2),
            }[whose]
            await peer.say(report(kind, about))
            expected: list[Any] = []
            if kind in ("started", "finished"):
                expected = [{"type": "lease_lost", **about}]
            if kind == "finished" and whose == "nobody's":
                expected = [{"type": "recorded", "runs": [{**about, "gone": True}]}]
            assert await peer.answers(len(expected)) == expected
            await peer.finish(held)
            await other.finish(others)
            await peer.finish((await peer.pushed())[0])

    run(main())
    assert broker.state_of(waiting["id"]) == ("SCHEDULED", "Scheduled")
    for run_ in (own, foreign):
        assert broker.history_of(run_["id"]) == ["Scheduled", "Pending", "Completed"]


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"])
def test_the_same_end_twice_has_the_same_verdict_and_one_place_in_history(broker: Host, end: str) -> None:
    item = new_run(new_key())

    async def main() -> None:
        async with worker(broker, item["task_key"]) as peer:
            await submitted(broker, item)
            (held,) = await peer.pushed()
            finished = {"type": "finished", **lease(held), "state": {"type": end}}
            await peer.say([finished, finished], finished)
            assert await peer.answers(3) == [{"type": "recorded", "runs": [lease(held)]}] * 3

    run(main())
    assert broker.history_of(item["id"]) == ["Scheduled", "Pending", end.capitalize()]


def test_another_end_after_the_first_does_not_count(broker: Host) -> None:
    item = new_run(new_key())

    async def main() -> None:
        async with worker(broker, item["task_key"]) as peer:
            await submitted(broker, item)
            (held,) = await peer.pushed()
            await peer.finish(held, "FAILED", error={"message": "first"})
            await peer.finish(held, "COMPLETED", result="second")

    run(main())
    assert broker.history_of(item["id"]) == ["Scheduled", "Pending", "Failed"]
    assert "result" not in broker.http.get(f"/api/task_runs/{item['id']}").json()


def test_started_twice_progress_and_started_after_the_end(broker: Host) -> None:
    item = new_run(new_key())

    async def main() -> None:
        async with worker(broker, item["task_key"]) as peer:
            await submitted(broker, item)
            (held,) = await peer.pushed()
            started = {"type": "started", **lease(held)}
            await peer.say([started, started], started, report("progress", lease(held)))
            await peer.finish(held)
            await peer.say(started, report("progress", lease(held)), report("release", lease(held)))
            assert await peer.answers() == []

    run(main())
    assert broker.history_of(item["id"]) == ["Scheduled", "Pending", "Running", "Completed"]


def test_an_end_before_a_start_and_both_in_the_wrong_order(broker: Host) -> None:
    item = new_run(new_key())

    async def main() -> None:
        async with worker(broker, item["task_key"]) as peer:
            await submitted(broker, item)
            (held,) = await peer.pushed()
            await peer.say([report("finished", lease(held)), report("started", lease(held))])
            assert await peer.answers(1) == [{"type": "recorded", "runs": [lease(held)]}]

    run(main())
    assert broker.history_of(item["id"]) == ["Scheduled", "Pending", "Completed"]


def test_a_run_given_back_twice_at_once_comes_back_once(broker: Host) -> None:
    item = new_run(new_key())

    async def main() -> None:
        async with worker(broker, item["task_key"], limit=2) as peer:
            await submitted(broker, item)
            (held,) = await peer.pushed()
            await peer.say({"type": "release", "runs": [lease(held), lease(held, 7), lease(held)]})
            (again,) = await peer.pushed()
            assert lease(again) == lease(held, 2)
            await peer.say({"type": "release", "runs": [lease(held)]}, report("finished", lease(held)))
            assert await peer.answers(1) == [{"type": "lease_lost", **lease(held)}]
            await peer.finish(again)

    run(main())
    assert broker.history_of(item["id"]) == ["Scheduled", "Pending", "Requeued", "Pending", "Completed"]


def test_an_end_and_a_release_in_one_message(broker: Host) -> None:
    first, second = new_run(new_key()), new_run("")
    second["task_key"] = first["task_key"]

    async def main() -> None:
        async with worker(broker, first["task_key"], limit=2) as peer:
            await submitted(broker, first, second)
            held, other = await peer.pushed(2)
            await peer.say(
                [report("finished", lease(held)), report("release", lease(held)), report("release", lease(other))]
            )
            await peer.expect("recorded", runs=[lease(held)])
            (again,) = await peer.pushed()
            assert lease(again) == lease(other, 2)
            await peer.finish(again)

    run(main())


def test_a_snooze_of_ten_years(broker: Host) -> None:
    item = new_run(new_key())

    async def main() -> None:
        async with worker(broker, item["task_key"]) as peer:
            await submitted(broker, item)
            (held,) = await peer.pushed()
            await peer.say({"type": "release", "runs": [{**lease(held), "delay": 315_360_000, "reason": "\0\n"}]})
            assert await peer.answers(1) == [{"type": "recorded", "runs": [lease(held)]}]
        async with worker(broker, item["task_key"]) as peer:
            assert await peer.answers() == []

    run(main())
    assert broker.state_of(item["id"]) == ("SCHEDULED", "Requeued")


# --- Results ---------------------------------------------------------------------------------------------------

BIG = limits.MAX_PAYLOAD_BYTES


@pytest.mark.parametrize("field", ["result", "error"])
@pytest.mark.parametrize(
    ("payload", "kept"),
    [
        (json.dumps("x" * (BIG - 2)), True),
        (json.dumps("x" * (BIG - 1)), False),
        ("[" * 64 + "]" * 64, True),
        ("[" * 65 + "]" * 65, False),
        (f'{{"n":{2**64},"n":{2**65},"m":1e400}}', True),
        ("null", True),
        ('""', True),
        ('"\\u0000"', True),
        (" [ 1 , 2 ] ", True),
    ],
    ids=["512 KiB", "512 KiB + 1", "64 levels", "65 levels", "big numbers", "null", "empty", "NUL", "spaces"],
)
def test_a_payload_of_an_end(broker: Host, field: str, payload: str, kept: bool) -> None:
    item = new_run(new_key(), retries=3)

    async def main() -> None:
        async with worker(broker, item["task_key"]) as peer, producer(broker) as watcher:
            await watcher.submit(item)
            await watcher.say({"type": "watch", "ids": [item["id"]]})
            (held,) = await peer.pushed()
            state = '{"type":"COMPLETED"}'
            text = f'{{"type":"finished","id":"{item["id"]}","attempt":1,"state":{state},"{field}":{payload}}}'
            await peer.say(text)
            await peer.expect("recorded", runs=[lease(held)])
            ended = await watcher.expect("finished", id=item["id"])
            if kept:
                assert_like(ended, {"state": {"type": "COMPLETED"}, field: json.loads(payload)})
            else:
                assert_like(ended, {"state": {"type": "FAILED", "name": "ResultTooLarge"}})
                assert field not in ended

    run(main())
    assert broker.state_of(item["id"]) == (("COMPLETED", "Completed") if kept else ("FAILED", "ResultTooLarge"))


# --- Slots -----------------------------------------------------------------------------------------------------


def test_the_limit_is_kept_whatever_it_becomes(broker: Host) -> None:
    key = new_key()
    runs = [new_run(key) for _ in range(5)]

    async def main() -> None:
        async with worker(broker, key, limit=0) as peer:
            await submitted(broker, *runs)
            assert await peer.answers() == []
            await peer.say({"type": "limit", "limit": 2})
            held = await peer.pushed(2)
            await peer.say({"type": "limit", "limit": 1})
            await peer.finish(held[0])
            assert await peer.answers() == []
            await peer.say({"type": "limit", "limit": 0})
            await peer.finish(held[1])
            assert await peer.answers() == []
            await peer.say({"type": "limit", "limit": 1000})
            for rest in await peer.pushed(3):
                await peer.finish(rest)

    run(main())


def test_a_refused_report_keeps_its_slot(broker: Host) -> None:
    key = new_key()

    async def main() -> None:
        async with worker(broker, key) as peer:
            await submitted(broker, new_run(key), new_run(key))
            (held,) = await peer.pushed()
            await peer.say(
                {**report("finished", lease(held)), "state": {"type": "DONE"}}, {"type": "limit", "limit": -1}
            )
            assert [answer["type"] for answer in await peer.answers()] == ["error", "error"]
            await peer.finish(held)
            await peer.finish((await peer.pushed())[0])

    run(main())


def test_the_same_key_twice_delivers_once(broker: Host) -> None:
    key = new_key()

    async def main() -> None:
        async with authenticated(broker, WORKER) as peer:
            await peer.subscribe(key, key, key, limit=10)
            await submitted(broker, new_run(key))
            (held,) = await peer.pushed()
            assert await peer.answers() == []
            await peer.finish(held)
            await quit_(peer)

    run(main())


@pytest.mark.parametrize("ending", ["quit", "4001", "1009", "vanish"])
def test_what_a_worker_holds_when_it_goes_is_not_lost(broker: Host, ending: str) -> None:
    """A worker that quits gives its runs back; one that goes in whatever other way may come back for them."""
    item = new_run(new_key())

    async def main() -> None:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(authenticated(broker, WORKER))
            session = await first.subscribe(item["task_key"])
            await submitted(broker, item)
            (held,) = await first.pushed()
            if ending == "vanish":
                first.socket.transport.abort()
            else:
                await first.say({"quit": '{"type":"quit"}', "4001": "[", "1009": "x" * (1 << 20) + "x"}[ending])
                expected = {"quit": [1000], "4001": [4001], "1009": [1009, BROKEN.code]}[ending]
                assert (await first.closed()).code in expected
            async with authenticated(broker, WORKER) as second:
                resume = {"session": session["session"], "resume_token": session["resume_token"]}
                answer = await second.subscribe(item["task_key"], running=[lease(held)], **resume)
                if ending == "quit":
                    assert answer["session"] != session["session"]
                    assert answer["lost"] == [lease(held)]
                    (held,) = await second.pushed()
                    assert held["attempt"] == 2
                else:
                    assert answer["session"] == session["session"]
                    assert answer["resumed"] == [item["id"]]
                await second.finish(held)
                await quit_(second)

    run(main())
    assert broker.state_of(item["id"]) == ("COMPLETED", "Completed")


# --- Resuming --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claim",
    [
        "wrong token",
        "empty token",
        "no token",
        "token of NUL",
        "unknown session",
        "no session",
        "another's session",
    ],
)
def test_a_session_that_cannot_be_resumed_is_a_new_one(broker: Host, claim: str) -> None:
    """All that the worker says it has is lost; and whose session it really is keeps it."""
    key = new_key()
    item = new_run(key)

    async def main() -> None:
        async with worker(broker, limit=0), authenticated(broker, WORKER) as owner:
            session = await owner.subscribe(key)
            await submitted(broker, item)
            (held,) = await owner.pushed()
            token = session["resume_token"]
            fields = {
                "wrong token": {"session": session["session"], "resume_token": "x" * 22},
                "empty token": {"session": session["session"], "resume_token": ""},
                "no token": {"session": session["session"]},
                "token of NUL": {"session": session["session"], "resume_token": "\0" * 22},
                "unknown session": {"session": uuid7(), "resume_token": token},
                "no session": {"resume_token": token},
                "another's session": {"session": session["session"], "resume_token": token[:-1]},
            }[claim]
            async with authenticated(broker, WORKER) as thief:
                answer = await thief.subscribe(key, running=[lease(held), {"id": uuid7(), "attempt": 3}], **fields)
                assert answer["session"] != session["session"]
                assert len(answer["lost"]) == 2
                assert answer.get("resumed", []) == []
                await thief.say(report("finished", lease(held)))
                assert await thief.answers(1) == [{"type": "lease_lost", **lease(held)}]
                await quit_(thief)
            await owner.finish(held)
            await quit_(owner)

    run(main())
    assert broker.history_of(item["id"]) == ["Scheduled", "Pending", "Completed"]


def test_resuming_while_the_old_socket_lives(broker: Host) -> None:
    key = new_key()
    item = new_run(key)

    async def main() -> None:
        async with authenticated(broker, WORKER) as old, authenticated(broker, WORKER) as new:
            session = await old.subscribe(key)
            await submitted(broker, item)
            (held,) = await old.pushed()
            resume = {"session": session["session"], "resume_token": session["resume_token"]}
            answer = await new.subscribe(key, running=[lease(held)], **resume)
            assert_like(await old.closed(), Close(4409, "resumed on another connection"))
            assert (answer["session"], answer["resumed"]) == (session["session"], [item["id"]])
            await new.finish(held)
            await quit_(new)

    run(main())


@pytest.mark.parametrize(
    ("claims", "resumed", "lost"),
    [
        (["held"], ["held"], []),
        (["held", "held"], ["held"], []),
        ([], [], []),
        (["reported"], ["reported"], []),
        (["foreign"], [], ["foreign"]),
        (["held, attempt 2"], [], ["held, attempt 2"]),
        (["unknown", "held", "reported", "foreign"], ["held", "reported"], ["unknown", "foreign"]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) else None,
)
def test_what_a_resumed_session_still_has(
    broker: Host, claims: list[str], resumed: list[str], lost: list[str]
) -> None:
    key, other_key = new_key(), new_key()
    held_run, done_run, foreign_run = new_run(key), new_run(key), new_run(other_key)

    async def main() -> None:
        async with authenticated(broker, WORKER) as old, worker(broker, other_key) as other:
            session = await old.subscribe(key, limit=2)
            await submitted(broker, done_run, foreign_run)
            (done,) = await old.pushed()
            await old.finish(done)
            await submitted(broker, held_run)
            (held,) = await old.pushed()
            (foreign,) = await other.pushed()
            leases = {
                "held": lease(held),
                "held, attempt 2": lease(held, 2),
                "reported": lease(done),
                "foreign": lease(foreign),
                "unknown": {"id": uuid7(), "attempt": 1},
            }
            old.socket.transport.abort()
            async with authenticated(broker, WORKER) as new:
                resume = {"session": session["session"], "resume_token": session["resume_token"]}
                answer = await new.subscribe(key, running=[leases[claim] for claim in claims], **resume)
                assert answer["session"] == session["session"]
                assert answer.get("resumed", []) == [leases[name]["id"] for name in resumed]
                assert answer.get("lost", []) == [leases[name] for name in lost]
                if "held" not in resumed:
                    (held,) = await new.pushed()
                    assert held["attempt"] == 2
                await new.finish(held)
                await quit_(new)
            await other.finish(foreign)

    run(main())


def test_a_key_changed_while_resuming_keeps_what_is_held(broker: Host) -> None:
    key, other = new_key(), new_key()

    async def main() -> None:
        async with authenticated(broker, WORKER) as old, authenticated(broker, WORKER) as new:
            session = await old.subscribe(key)
            await submitted(broker, new_run(key), new_run(other))
            (held,) = await old.pushed()
            resume = {"session": session["session"], "resume_token": session["resume_token"]}
            await new.subscribe(other, running=[lease(held)], **resume)
            assert await new.answers() == []
            await new.finish(held)
            await new.finish((await new.pushed())[0])
            await quit_(new)

    run(main())


# --- What the broker pushes stays within the limits ------------------------------------------------------------


#: A worker that is sent more has to close with 1009, and when it is back it is sent the same again, for ever.
@pytest.mark.parametrize(
    ("count", "headers"),
    [(30, 15), (200, 2)],
    ids=["30 runs with 60 kB of headers", "200 runs with 8 kB of headers"],
)
def test_no_message_to_a_worker_is_larger_than_announced(broker: Host, count: int, headers: int) -> None:
    """`Peer.hear` looks at the size of each."""
    key = new_key()
    runs = [new_run(key, headers={f"h{n}": "x" * 4000 for n in range(headers)}) for _ in range(count)]

    async def main() -> None:
        async with worker(broker, key, limit=0) as peer, producer(broker) as sender:
            for run_ in runs:
                await sender.submit(run_)
            await peer.say({"type": "limit", "limit": 1000})
            for held in await peer.pushed(count):
                await peer.finish(held)

    run(main())


def test_the_largest_run_that_can_be_submitted_can_be_pushed(broker: Host) -> None:
    headers = headers_of(limits.MAX_HEADERS_BYTES)
    item = new_run(new_key(), parameters={"x": "x" * (BIG - 8)}, headers=headers, timeout=1, name="🦆" * 200)

    async def main() -> None:
        async with worker(broker, item["task_key"]) as peer, producer(broker) as sender:
            await sender.say(json.dumps({"type": "submit", "ref": 1, "runs": [item]}, separators=(",", ":")))
            await sender.expect("submitted", runs=[{"id": item["id"], "created": True}])
            (held,) = await peer.pushed()
            assert held["headers"] == headers
            await peer.finish(held)

    run(main())
