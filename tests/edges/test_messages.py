"""Messages that are wrong as a whole, at every place of the conversation; and frames that come out of order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runlane.protocol.messages import SUBPROTOCOL
from tests.support import DEEP

from .harness import (
    BROKEN,
    PHASES,
    SUBMISSION,
    WORKER,
    Close,
    Frame,
    Host,
    Peer,
    assert_like,
    authenticated,
    close_of,
    dial,
    error,
    new_key,
    new_run,
    producer,
    run,
    talk,
    upgrade,
    worker,
)

UNKNOWN = error("unknown_type", field="type")
MIB = 1024 * 1024
OVERSIZE = f"frame with {MIB + 1} bytes exceeds limit of {MIB} bytes"


async def exchange(host: Host, phase: str, message: str | bytes) -> list[Any]:
    async with PHASES[phase](host) as peer:
        await peer.say(message)
        return await peer.answers()


def padded(size: int) -> str:
    """A beat of this many bytes."""
    frame = '{"type":"beat","n":5,"x":""}'
    return f'{frame[:-2]}{"x" * (size - len(frame))}"}}'


# --- Messages ------------------------------------------------------------------------------------------------

#: Messages that end the conversation wherever it is, and the reason they are given.
FATAL: dict[str, tuple[str | bytes, Close]] = {
    "nothing": ("", Close(4001, "not JSON")),
    "a space": (" ", Close(4001, "not JSON")),
    "not JSON": ("hello", Close(4001, "not JSON")),
    "half an object": ('{"type":"beat"', Close(4001, "not JSON")),
    "two objects": ('{"type":"beat"} {"type":"beat"}', Close(4001, "not JSON")),
    "a byte order mark": ('\ufeff{"type":"beat"}', Close(4001, "not JSON")),
    "single quotes": ("{'type':'beat'}", Close(4001, "not JSON")),
    "a trailing comma": ('{"type":"beat",}', Close(4001, "not JSON")),
    "NaN": ('{"type":"beat","n":NaN}', Close(4001, "not JSON")),
    "Infinity": ('{"type":"beat","n":-Infinity}', Close(4001, "not JSON")),
    "a leading zero": ('{"type":"beat","n":01}', Close(4001, "not JSON")),
    "a raw control character": ('{"type":"beat","x":"\x01"}', Close(4001, "not JSON")),
    "an unknown escape": ('{"type":"beat","x":"\\q"}', Close(4001, "not JSON")),
    "half a surrogate pair": ('{"type":"auth","token":"\\ud800"}', Close(4001, "not JSON")),
    "half a surrogate pair where nobody looks": ('{"type":"beat","x":"\\udfff"}', Close(4001, "not JSON")),
    "a half object in an array": ('[{"type":"beat"},{', Close(4001, "not JSON")),
    "a number": ("1", Close(4001, "an object or an array")),
    "a huge number": ("1" * 5000, Close(4001, "an object or an array")),
    "a string": ('"beat"', Close(4001, "an object or an array")),
    "true": ("true", Close(4001, "an object or an array")),
    "null": ("null", Close(4001, "an object or an array")),
    "arrays too deep": ("[" * DEEP + "]" * DEEP, Close(4001, "nested too deeply")),
    "brackets too deep": ("[" * DEEP, Close(4001, "nested too deeply")),
    "objects too deep": ('[{"":' * (DEEP // 3) + "1" + "}]" * (DEEP // 3), Close(4001, "nested too deeply")),
    "arrays too deep in a frame": (f'{{"type":"beat","x":{"[" * DEEP}{"]" * DEEP}}}', Close(4001, "deeply")),
    "a binary message": (b'{"type":"beat"}', Close(4001, "binary")),
    "an empty binary message": (b"", Close(4001, "binary")),
}

#: Messages of one frame that is refused; before `auth` that is the end.
REFUSED: dict[str, tuple[str, list[Frame]]] = {
    "an empty object": ("{}", [UNKNOWN]),
    "a type of no frame": ('{"type":"hello"}', [error("unknown_type", frame="hello")]),
    "a type of a down frame": ('{"type":"runs","runs":[]}', [error("unknown_type", frame="runs")]),
    "a type in capitals": ('{"type":"BEAT"}', [error("unknown_type", frame="BEAT")]),
    "an empty type": ('{"type":""}', [error("unknown_type", frame="")]),
    "a null type": ('{"type":null}', [UNKNOWN]),
    "a type that is a number": ('{"type":1}', [UNKNOWN]),
    "a type that is true": ('{"type":true}', [UNKNOWN]),
    "a type that is an array": ('{"type":["beat"]}', [UNKNOWN]),
    "a type with a NUL": ('{"type":"beat\\u0000"}', [error("unknown_type", frame="beat\0")]),
    "a type of 10^6 letters": (json.dumps({"type": "x" * 10**6}), [error("unknown_type", frame=...)]),
    "two types, the last one right": (
        '{"type":"hello","type":"beat","n":5}',
        [error("unknown_type", frame="beat")],
    ),
    "two types, both right": ('{"type":"beat","type":"quit"}', [error("unknown_type", frame="quit")]),
    "two types": ('{"type":"beat","type":"hello"}', [error("unknown_type", frame="hello")]),
    "a ref": ('{"type":"hello","ref":7}', [error("unknown_type", ref=7)]),
    "a ref of 10^6 letters": (
        json.dumps({"type": "hello", "ref": "x" * 10**6}),
        [error("unknown_type", ref=None)],
    ),
    "a ref that is no ref": ('{"type":"hello","ref":{}}', [error("unknown_type", ref=None)]),
    "a number in an array": ("[1]", [UNKNOWN]),
    "null in an array": ("[null]", [UNKNOWN]),
    "an array in an array": ('[[{"type":"beat"}]]', [UNKNOWN]),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("case", FATAL)
def test_a_message_that_breaks_the_conversation(broker: Host, phase: str, case: str) -> None:
    message, close = FATAL[case]
    assert_like(run(exchange(broker, phase, message)), [close])


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("case", REFUSED)
def test_a_message_with_a_wrong_frame(broker: Host, phase: str, case: str) -> None:
    message, answers = REFUSED[case]
    end = [Close(1008, "expected auth")] if "connected" in phase else []
    assert_like(run(exchange(broker, phase, message)), [*answers, *end])


#: What is unusual, and yet right: the beat (or nothing) in it is answered.
FINE: dict[str, tuple[str, list[Frame]]] = {
    "an empty array": ("[]", []),
    "an empty array with spaces": (" [ \n] ", []),
    "a beat without n": ('{"type":"beat"}', [{"type": "beat"}]),
    "spaces around": (' \n{"type":"beat","n":5}\t', [{"type": "beat", "n": 5}]),
    "spaces before an array": (' [{"type":"beat","n":5}]', [{"type": "beat", "n": 5}]),
    "the type last": ('{"n":5,"type":"beat"}', [{"type": "beat", "n": 5}]),
    "the type escaped": ('{"type":"\\u0062eat","n":5}', [{"type": "beat", "n": 5}]),
    "unknown fields": ('{"type":"beat","n":5,"x":[{"y":null}],"":1}', [{"type": "beat", "n": 5}]),
    "unknown fields that no type holds": (
        f'{{"type":"beat","n":5,"x":1e400,"y":{"9" * 400},"z":"\\u0000"}}',
        [{"type": "beat", "n": 5}],
    ),
    "a key twice": ('{"type":"beat","n":4,"n":5}', [{"type": "beat", "n": 5}]),
    "a key twice, first wrong": ('{"type":"beat","x":4,"x":"five","n":5}', [{"type": "beat", "n": 5}]),
    "900 levels where nobody looks": (
        f'{{"type":"beat","n":5,"x":{"[" * 500}{"]" * 500}}}',
        [{"type": "beat", "n": 5}],
    ),
    "good, bad, good": (
        '[{"type":"beat","n":5},{"type":"hello"},{"type":"beat","n":6}]',
        [{"type": "beat", "n": 5}, error("unknown_type", frame="hello"), {"type": "beat", "n": 6}],
    ),
    "bad, good, bad": (
        '[null,{"type":"beat","n":5},{"type":"beat","n":-1}]',
        [UNKNOWN, {"type": "beat", "n": 5}, error("invalid_frame", frame="beat", field="n")],
    ),
    "100 beats": (json.dumps([{"type": "beat", "n": 5}] * 100), [{"type": "beat", "n": 5}] * 100),
    "a MiB": (padded(MIB), [{"type": "beat", "n": 5}]),
}


@pytest.mark.parametrize("phase", [phase for phase in PHASES if "connected" not in phase])
@pytest.mark.parametrize("case", FINE)
def test_a_message_that_only_looks_wrong(broker: Host, phase: str, case: str) -> None:
    message, answers = FINE[case]
    assert_like(run(exchange(broker, phase, message)), answers)


@pytest.mark.parametrize("opcode", [1, 2], ids=["text", "binary"])
@pytest.mark.parametrize("size", [MIB + 1, 2**62], ids=["a byte more than a MiB", "4 EiB"])
@pytest.mark.parametrize("path", [WORKER, SUBMISSION])
def test_a_message_that_is_too_big_is_not_even_read(broker: Host, path: str, size: int, opcode: int) -> None:
    head = bytes([0x80 | opcode, 0xFF]) + size.to_bytes(8, "big") + bytes(4)
    answer = run(talk(broker, upgrade(path, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"), head))
    assert close_of(answer) == 1009


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("message", [padded(MIB + 1), b"x" * (MIB + 1)], ids=["text", "binary"])
def test_a_message_that_is_too_big_breaks_the_connection(broker: Host, phase: str, message: str | bytes) -> None:
    """What of it is still under way when the broker closes may cost the peer the close frame: TCP resets."""
    assert run(exchange(broker, phase, message))[0] in (Close(1009, OVERSIZE), BROKEN)


def test_fragments_too_big_together(broker: Host) -> None:
    async def main() -> None:
        async with producer(broker) as peer:
            await peer.socket.send(["x" * 1000] * 1049)
            assert (await peer.closed()).code in (1009, BROKEN.code)

    run(main())


def test_an_empty_array_is_nothing_before_auth_too(broker: Host) -> None:
    async def main() -> None:
        async with dial(broker, WORKER) as peer:
            await peer.say("[]", [{"type": "auth"}], " [] ")
            await peer.expect("auth_success")

    run(main())


# --- Order ---------------------------------------------------------------------------------------------------

ID = "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90"
LEASE = {"id": ID, "attempt": 1}
UP: dict[str, list[Frame]] = {
    WORKER: [
        {"type": "auth"},
        {"type": "subscribe", "client_id": "w", "keys": ["edge.order"], "limit": 1},
        {"type": "beat", "n": 1},
        {"type": "started", **LEASE},
        {"type": "progress", **LEASE, "current": 1},
        {"type": "finished", **LEASE, "state": {"type": "COMPLETED"}},
        {"type": "release", "runs": [LEASE]},
        {"type": "limit", "limit": 1},
        {"type": "quit"},
    ],
    SUBMISSION: [
        {"type": "auth"},
        {"type": "submit", "ref": 1, "runs": []},
        {"type": "watch", "ids": []},
        {"type": "unwatch", "ids": []},
        {"type": "cancel", "ref": 1, "ids": []},
        {"type": "beat", "n": 1},
        {"type": "quit"},
    ],
}


@pytest.mark.parametrize(
    ("path", "frame"),
    [(path, frame) for path, frames in UP.items() for frame in frames[1:]],
    ids=lambda value: value["type"] if isinstance(value, dict) else value.rpartition("/")[2],
)
@pytest.mark.parametrize("packed", [False, True], ids=["alone", "in an array"])
def test_nothing_but_auth_comes_first(broker: Host, path: str, frame: Frame, packed: bool) -> None:
    async def main() -> None:
        async with dial(broker, path) as peer:
            await peer.say([frame, {"type": "auth"}] if packed else frame)
            assert await peer.closed() == Close(1008, f"expected auth, got {frame['type']}")

    run(main())


@pytest.mark.parametrize("frame", UP[WORKER], ids=lambda frame: frame["type"])
def test_a_worker_before_it_subscribes(broker: Host, frame: Frame) -> None:
    expected: dict[str, list[Any]] = {
        "subscribe": [{"type": "subscribed"}],
        "beat": [{"type": "beat", "n": 1}],
        "quit": [Close(1000, "goodbye")],
    }
    refusal = [error("out_of_order", frame=frame["type"], field=None)]

    async def main() -> None:
        async with authenticated(broker, WORKER) as peer:
            await peer.say(frame)
            answers = expected.get(frame["type"], refusal)
            assert_like(await peer.answers(len(answers)), answers)

    run(main())


@pytest.mark.parametrize("frame", UP[WORKER], ids=lambda frame: frame["type"])
def test_a_worker_that_is_subscribed(broker: Host, frame: Frame) -> None:
    expected: dict[str, list[Any]] = {
        "auth": [error("out_of_order", frame="auth")],
        "subscribe": [error("out_of_order", frame="subscribe")],
        "beat": [{"type": "beat", "n": 1}],
        "started": [{"type": "lease_lost", **LEASE}],
        "finished": [{"type": "recorded", "runs": [{**LEASE, "gone": True}]}],
        "quit": [Close(1000, "goodbye")],
    }

    async def main() -> None:
        async with worker(broker, leave=False) as peer:
            await peer.say(frame)
            answers = expected.get(frame["type"], [])
            assert_like(await peer.answers(len(answers)), answers)

    run(main())


@pytest.mark.parametrize("frame", UP[SUBMISSION], ids=lambda frame: frame["type"])
def test_a_producer_that_is_ready(broker: Host, frame: Frame) -> None:
    expected: dict[str, list[Any]] = {
        "auth": [error("out_of_order", frame="auth")],
        "submit": [{"type": "submitted", "ref": 1, "runs": []}],
        "cancel": [{"type": "cancelled", "ref": 1, "runs": []}],
        "beat": [{"type": "beat", "n": 1}],
        "quit": [Close(1000, "goodbye")],
    }

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say(frame)
            answers = expected.get(frame["type"], [])
            assert_like(await peer.answers(len(answers)), answers)

    run(main())


def test_frames_of_the_other_socket_are_unknown(broker: Host) -> None:
    async def main(path: str, frame: Frame) -> None:
        async with PHASES["worker subscribed" if path == WORKER else "producer ready"](broker) as peer:
            await peer.say(frame)
            assert_like(await peer.answers(), [error("unknown_type", frame=frame["type"])])

    run(main(WORKER, {"type": "submit", "ref": 1, "runs": []}))
    run(main(SUBMISSION, {"type": "subscribe", "client_id": "w", "keys": ["k"], "limit": 1}))


def test_a_whole_handshake_in_one_message(broker: Host) -> None:
    """`started` comes before `subscribed` has gone: it is out of order, and the session opens all the same."""

    async def main() -> None:
        async with dial(broker, WORKER) as peer:
            subscribe = {"type": "subscribe", "client_id": "w", "keys": [new_key()], "limit": 1}
            await peer.say([{"type": "auth"}, subscribe, {"type": "beat", "n": 1}, {"type": "started", **LEASE}])
            await peer.expect("auth_success")
            await peer.expect("beat", n=1)
            await peer.expect("error", code="out_of_order", frame="started")
            await peer.expect("subscribed")

    run(main())


def test_what_comes_behind_quit_does_not_count(broker: Host) -> None:
    item = new_run()

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say([{"type": "quit"}, {"type": "submit", "ref": 1, "runs": [item]}, {"type": "hello"}])
            assert await peer.closed() == Close(1000, "goodbye")

    run(main())
    assert broker.http.get(f"/api/task_runs/{item['id']}").status_code == 404


# --- The eleventh bad frame ------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["singly", "in one message"])
@pytest.mark.parametrize("phase", [phase for phase in PHASES if "connected" not in phase])
def test_ten_bad_frames_are_borne_and_the_eleventh_is_not(broker: Host, phase: str, packed: bool) -> None:
    async def main() -> None:
        async with PHASES[phase](broker) as peer:
            bad: list[Any] = [{"type": "hello", "ref": n} for n in range(10)]
            await peer.say(*([bad] if packed else bad))
            assert_like(await peer.answers(), [error("unknown_type", ref=n) for n in range(10)])
            await peer.say({"type": "hello"})
            assert_like(await peer.answers(), [error("unknown_type"), Close(4001, "more than 10 bad frames")])

    run(main())


def test_bad_frames_of_every_kind_count_and_good_ones_between_do_not(broker: Host) -> None:
    async def main() -> None:
        async with worker(broker, leave=False) as peer:
            bad = ["{}", {"type": "beat", "n": -1}, {"type": "auth"}, "[1]", {"type": "limit", "limit": 1001}]
            for message in bad * 2:
                await peer.say(message, {"type": "beat"})
            assert len(await peer.answers()) == 20
            await peer.say({"type": "auth"})
            assert_like((await peer.answers())[-1], Close(4001, "more than 10 bad frames"))

    run(main())


def test_what_stands_before_the_eleventh_counts(broker: Host) -> None:
    items = [new_run(), new_run()]

    async def main() -> None:
        async with producer(broker) as peer:
            submits = [{"type": "submit", "ref": n, "runs": [item]} for n, item in enumerate(items)]
            await peer.say([submits[0], *[{"type": "hello"}] * 11, submits[1]])
            assert_like(await peer.closed(), Close(4001, "more than 10 bad frames"))

    run(main())
    broker.canary.flies()  # commits come in their order: the first one's is there now
    broker.canary.waits()
    assert broker.wait(broker.core.store.run_by_id(items[1]["id"])) is None
    assert broker.state_of(items[0]["id"])[0] == "SCHEDULED"


async def is_alive(peer: Peer) -> bool:
    return await peer.answers() == []


def test_items_and_unknown_ids_are_not_bad_frames(broker: Host) -> None:
    async def main() -> None:
        async with producer(broker) as peer:
            for _ in range(20):
                (answer,) = await peer.submit({})
                assert answer["error"]["code"] == "invalid_field"
                await peer.say({"type": "watch", "ids": [ID]})
                await peer.expect("error", code="not_found", ref=ID)
            assert await is_alive(peer)

    run(main())
