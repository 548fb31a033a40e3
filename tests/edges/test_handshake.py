"""From the upgrade to `auth_success`: subprotocols, tokens, time; and bytes that are no WebSocket's."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import product

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from runlane.protocol import limits
from runlane.protocol.messages import SUBPROTOCOL

from .harness import (
    SUBMISSION,
    TOKEN,
    WORKER,
    Close,
    Host,
    close_of,
    dial,
    new_key,
    new_run,
    run,
    status_of,
    talk,
    upgrade,
    ws_frame,
)

PATHS = pytest.mark.parametrize("path", [WORKER, SUBMISSION], ids=["worker", "producer"])
OFFER = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


# --- Subprotocol -----------------------------------------------------------------------------------------------


NOT_OURS = (
    None,
    "prefect",
    "runlane.v2",
    "RUNLANE.V1",
    "runlane.v1x",
    "runlane.v11, runlane",
    "\xff\xfe",
    ",",
    "runlane v1",
)
#: Prefect's workers come so: see tests/prefect.
PREFECT = {(WORKER, None), (WORKER, "prefect")}


@pytest.mark.parametrize(
    ("path", "header"), [case for case in product((WORKER, SUBMISSION), NOT_OURS) if case not in PREFECT]
)
def test_no_subprotocol_of_ours(broker: Host, path: str, header: str | None) -> None:
    headers = [] if header is None else [f"Sec-WebSocket-Protocol: {header}"]
    answer = run(talk(broker, upgrade(path, *headers)))
    assert status_of(answer) == 400
    said = answer.partition(b"\r\n\r\n")[2]
    if header in ("\xff\xfe", ",", "runlane v1"):
        assert b"invalid Sec-WebSocket-Protocol header" in said
    else:
        assert said == b"expected the WebSocket subprotocol runlane.v1\n"


@PATHS
@pytest.mark.parametrize("offers", [["runlane.v1"], ["prefect", "runlane.v1"], ["runlane.v2", "runlane.v1", "x"]])
def test_ours_among_others(broker: Host, path: str, offers: list[str]) -> None:
    async def main() -> None:
        async with dial(broker, path, subprotocols=offers) as peer:
            assert peer.socket.subprotocol == SUBPROTOCOL
            await peer.say({"type": "auth"})
            await peer.expect("auth_success", protocol=SUBPROTOCOL)

    run(main())


def test_ours_in_a_second_header(broker: Host) -> None:
    answer = run(talk(broker, upgrade(WORKER, "Sec-WebSocket-Protocol: x", OFFER), ws_frame(8, b"")))
    assert status_of(answer) == 101


def test_deflate_is_declined(broker: Host) -> None:
    answer = run(
        talk(broker, upgrade(WORKER, OFFER, "Sec-WebSocket-Extensions: permessage-deflate"), ws_frame(8, b""))
    )
    assert status_of(answer) == 101
    assert b"extensions" not in answer.lower()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 403),
        ("/api/task_runs/", 403),
        ("/livez", 403),
        (WORKER + "/", 403),
        ("/" + WORKER, 403),
        (WORKER.upper(), 403),
        (SUBMISSION + "%00", 403),
        (SUBMISSION.replace("submissions", "%73ubmissions"), 101),
        (SUBMISSION + "?token=x", 101),
    ],
)
def test_other_paths(broker: Host, target: str, status: int) -> None:
    chunks = [ws_frame(8, b"")] if status == 101 else []
    assert status_of(run(talk(broker, upgrade(target, OFFER), *chunks))) == status


@pytest.mark.parametrize(
    ("old", "new", "statuses"),
    [
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8", {400, 426}),
        (b"Sec-WebSocket-Version: 13\r\n", b"", {400, 426}),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", {400}),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short", {400}),
        (b"GET ", b"POST ", {400, 405}),
    ],
    ids=["old version", "no version", "no key", "short key", "POST"],
)
def test_an_upgrade_that_is_none(broker: Host, old: bytes, new: bytes, statuses: set[int]) -> None:
    assert status_of(run(talk(broker, upgrade(WORKER, OFFER).replace(old, new)))) in statuses


@pytest.mark.parametrize(
    "headers",
    [
        ["Cookie: " + 9000 * "a"],
        [f"X-{n}: a" for n in range(130)],
        ["Content-Length: 5"],
        ["Transfer-Encoding: chunked"],
    ],
    ids=["a long line", "many lines", "a body", "chunks"],
)
def test_an_upgrade_whose_head_cannot_be_taken_is_answered(broker: Host, headers: list[str]) -> None:
    """Nobody would wait for it otherwise: neither its sender's connection nor ours would ever end."""
    answer = run(talk(broker, upgrade(WORKER, OFFER, *headers)))
    assert status_of(answer) == 400
    assert answer.endswith(b"a short head, no body.\n")


# --- Token -----------------------------------------------------------------------------------------------------


@PATHS
@pytest.mark.parametrize(
    "token",
    [None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), f" {TOKEN}", f"{TOKEN}\0", "🦆", "x" * 1024],
)
def test_a_wrong_token_in_the_first_frame(guarded: Host, path: str, token: str | None) -> None:
    async def main() -> None:
        async with dial(guarded, path) as peer:
            await peer.say({"type": "auth", "token": token})
            assert await peer.closed() == Close(1008, "authentication failed")

    run(main())


def test_the_log_says_where_a_wrong_token_comes_from(guarded: Host) -> None:
    async def main() -> None:
        async with dial(guarded, WORKER) as peer:
            await peer.say({"type": "auth", "token": "wrong"})
            await peer.closed()

    before = len(guarded.log.lines())
    run(main())
    (line,) = guarded.log.lines()[before:]
    assert line.endswith("closing a client at 127.0.0.1 that has not subscribed: 1008 authentication failed")


@PATHS
def test_no_token_in_the_first_frame(guarded: Host, path: str) -> None:
    async def main() -> None:
        async with dial(guarded, path) as peer:
            await peer.say({"type": "auth"})
            assert await peer.closed() == Close(1008, "authentication failed")

    run(main())


@PATHS
def test_the_right_token_in_the_first_frame(guarded: Host, path: str) -> None:
    async def main() -> None:
        async with dial(guarded, path) as peer:
            await peer.say({"type": "auth", "token": TOKEN})
            welcome = await peer.expect("auth_success", protocol=SUBPROTOCOL)
            assert welcome["max_message_bytes"] == limits.MAX_MESSAGE_BYTES
            assert welcome["max_payload_bytes"] == limits.MAX_PAYLOAD_BYTES

    run(main())


@PATHS
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_right_token_in_the_header(guarded: Host, path: str, scheme: str) -> None:
    async def main() -> None:
        async with dial(guarded, path, headers={"Authorization": f"{scheme} {TOKEN}"}) as peer:
            await peer.expect("auth_success")
            assert await peer.answers() == []

    run(main())


@PATHS
def test_the_right_token_in_the_header_and_in_a_frame(guarded: Host, path: str) -> None:
    """The second `auth` is one too many, and no more than that."""

    async def main() -> None:
        async with dial(guarded, path, headers=RIGHT) as peer:
            await peer.expect("auth_success")
            await peer.say({"type": "auth", "token": "wrong"})
            await peer.expect("error", code="out_of_order", frame="auth")
            assert await peer.answers() == []

    run(main())


@PATHS
@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer \xff\xfe", f"Bearer {TOKEN} x"],
)
def test_a_wrong_header_is_no_header(guarded: Host, path: str, header: str) -> None:
    async def main(token: str) -> None:
        async with dial(guarded, path, headers={"Authorization": header}) as peer:
            await peer.say({"type": "auth", "token": token})
            if token == TOKEN:
                await peer.expect("auth_success")
            else:
                assert await peer.closed() == Close(1008, "authentication failed")

    run(main(TOKEN))
    run(main("wrong"))


@PATHS
def test_a_token_in_the_url_is_no_token(guarded: Host, path: str) -> None:
    async def main() -> None:
        async with dial(guarded, f"{path}?token={TOKEN}") as peer:
            await peer.say({"type": "beat"})
            assert await peer.closed() == Close(1008, "expected auth, got beat")

    run(main())


@PATHS
@pytest.mark.parametrize("token", [None, "", "whatever", "x" * 1024])
def test_any_token_where_none_is_needed(broker: Host, path: str, token: str | None) -> None:
    async def main() -> None:
        async with dial(broker, path, headers={"Authorization": f"Bearer {token}"}) as peer:
            await peer.say({"type": "auth", "token": token})
            await peer.expect("auth_success")

    run(main())


def test_without_auth_nothing_of_a_frame_is_done(guarded: Host) -> None:
    item = new_run()

    async def main() -> None:
        async with dial(guarded, SUBMISSION) as peer:
            await peer.say([{"type": "submit", "ref": 1, "runs": [item]}, {"type": "auth", "token": TOKEN}])
            assert await peer.closed() == Close(1008, "expected auth, got submit")

    run(main())
    assert guarded.http.get(f"/api/task_runs/{item['id']}").status_code == 404


def test_the_token_is_never_logged(guarded: Host) -> None:
    """Whatever a peer does with it; the health check of every case looks at the rest of the log."""

    async def main() -> None:
        async with dial(guarded, f"{WORKER}?token={TOKEN}", headers=RIGHT) as peer:
            await peer.expect("auth_success")
            await peer.say({"type": "auth", "token": TOKEN}, {"type": TOKEN}, "no JSON")
            await peer.closed()

    run(main())
    assert guarded.log.lines() != []
    assert TOKEN not in "".join(guarded.log.lines())
    assert TOKEN not in repr(guarded.core.settings)


# --- Time ------------------------------------------------------------------------------------------------------


@PATHS
def test_a_handshake_that_takes_too_long(broker: Host, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.02)

    async def main() -> None:
        async with dial(broker, path) as peer:
            assert await peer.closed() == Close(1008, "the handshake took too long")

    run(main())


def test_empty_arrays_do_not_prolong_it(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.05)

    async def main() -> None:
        async with dial(broker, WORKER) as peer:
            closed = asyncio.create_task(peer.closed())
            while not closed.done():
                with contextlib.suppress(ConnectionClosed):  # it may come just before
                    await peer.socket.send("[]")
                await asyncio.wait([closed], timeout=0.005)
            assert closed.result() == Close(1008, "the handshake took too long")

    run(main())


@pytest.mark.parametrize("header", [False, True], ids=["a frame", "a header"])
def test_a_worker_that_authenticates_by_and_never_subscribes(
    guarded: Host, header: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with dial(guarded, WORKER, headers=RIGHT if header else None) as peer:
            if not header:
                await peer.say({"type": "auth", "token": TOKEN})
            await peer.expect("auth_success")
            assert await peer.closed() == Close(1008, "the handshake took too long")

    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.1)
    run(main())


@pytest.mark.parametrize("header", [False, True], ids=["a frame", "a header"])
def test_no_time_is_left_running_when_the_handshake_is_over(
    guarded: Host, header: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer that has shown its token in whatever way may then be silent for as long as it likes."""
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.1)

    async def main() -> None:
        async with dial(guarded, SUBMISSION, headers=RIGHT if header else None) as peer:
            if not header:
                await peer.say({"type": "auth", "token": TOKEN})
            await peer.expect("auth_success")
            async with dial(guarded, SUBMISSION) as later:  # whose time runs out later than the first's would
                assert await later.closed() == Close(1008, "the handshake took too long")
            assert await peer.answers() == []

    run(main())


def test_nor_for_a_worker(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.1)

    async def main() -> None:
        async with dial(broker, WORKER) as peer:
            await peer.say({"type": "auth"})
            await peer.expect("auth_success")
            await peer.subscribe(new_key())
            async with dial(broker, SUBMISSION) as later:
                assert await later.closed() == Close(1008, "the handshake took too long")
            assert await peer.answers() == []

    run(main())


# --- Bytes -----------------------------------------------------------------------------------------------------


@PATHS
@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([ws_frame(1, b"\xff")], 1007),
        ([ws_frame(1, b"\xed\xa0\x80")], 1007),
        ([ws_frame(1, b"\xc3", fin=False), ws_frame(0, b"(")], 1007),
        ([ws_frame(3, b"")], 1002),
        ([ws_frame(0, b"x")], 1002),
        ([ws_frame(9, b"x", fin=False)], 1002),
        ([ws_frame(1, b"[", fin=False), ws_frame(1, b"]")], 1002),
        ([bytes([0xC1, 0x80, 0, 0, 0, 0])], 1002),
        ([bytes([0x81, 0x02]) + b"[]"], 1002),
        ([ws_frame(8, b"\x03")], 1002),
        ([ws_frame(8, b"\x03\xe8\xff")], 1007),
        ([ws_frame(8, b"\x00\x00")], 1002),
        ([ws_frame(8, b"\x03\xe8bye")], 1000),
        ([ws_frame(8, b"")], None),
        ([ws_frame(1, b"[", fin=False), ws_frame(9, b"ping"), ws_frame(0, b"]"), ws_frame(8, b"\x03\xe9")], 1001),
    ],
    ids=[
        "no UTF-8",
        "a surrogate",
        "half a character",
        "opcode 3",
        "a continuation of nothing",
        "a ping in fragments",
        "a message within a message",
        "a reserved bit",
        "no mask",
        "half a close code",
        "a close reason that is no UTF-8",
        "close code 0",
        "close 1000",
        "close without a code",
        "a ping between fragments",
    ],
)
def test_bytes(broker: Host, path: str, frames: list[bytes], code: int | None) -> None:
    answer = run(talk(broker, upgrade(path, OFFER), *frames))
    assert status_of(answer) == 101
    if code is not None:
        assert close_of(answer) == code


def test_text_that_is_no_utf8_costs_one_line_in_the_log(broker: Host) -> None:
    run(talk(broker, upgrade(WORKER, OFFER), ws_frame(1, b"\xff")))
    (line,) = [line for line in broker.log.lines() if "UTF-8" in line]
    assert "\n" not in line
    assert "WARNING" in line


@pytest.mark.parametrize("size", [1, 2, 7])
@PATHS
def test_a_frame_in_fragments(broker: Host, path: str, size: int) -> None:
    """They may end within a character."""
    text = '{"type":"beat","n":5,"x":"🦆é"}'.encode()

    async def main() -> None:
        async with dial(broker, path) as peer:
            await peer.say({"type": "auth"})
            await peer.expect("auth_success")
            await peer.socket.send([text[start : start + size] for start in range(0, len(text), size)], text=True)
            assert await peer.answers() == [{"type": "beat", "n": 5}]

    run(main())


def test_a_peer_that_vanishes_in_its_handshake(broker: Host) -> None:
    async def main() -> None:
        for head in (upgrade(WORKER, OFFER), upgrade(WORKER), upgrade(WORKER, OFFER)[:-2], b"G", b""):
            _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
            writer.write(head)
            writer.transport.abort()

    run(main())


def test_a_foreign_page_gets_no_socket(broker: Host) -> None:
    async def main() -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with dial(broker, WORKER, origin="https://evil.example"):
                pass
        assert refused.value.response.status_code == 403
        async with dial(broker, WORKER, origin=f"http://127.0.0.1:{broker.port}"):
            pass

    run(main())
