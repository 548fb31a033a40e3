"""PROTOCOL.md says what the package does."""

from __future__ import annotations

import pytest

from runlane.protocol import codec, limits
from runlane.protocol.closing import CloseCode, may_reconnect
from runlane.protocol.conversation import Phase, submission_conversation, worker_conversation
from runlane.protocol.errors import ErrorCode
from runlane.protocol.messages import Submit

from .page import DECODERS, PAGE, RULES, UNIONS, Example, examples, order, rows, tag


def test_every_json_block_is_an_example() -> None:
    assert PAGE.count("```json") == len(examples()) > 40


@pytest.mark.parametrize("example", examples(), ids=lambda example: " ".join(example.way))
def test_examples_parse_and_say_all_that_they_show(example: Example) -> None:
    frames = example.frames
    assert frames
    assert all(isinstance(frame, UNIONS[example.way]) for frame in frames)
    again = b"[" + b",".join(map(codec.encode, frames)) + b"]"
    assert DECODERS[example.way].decode(again) == frames


@pytest.mark.parametrize("way", UNIONS, ids=" ".join)
def test_every_frame_has_an_example_and_a_row(way: tuple[str, str]) -> None:
    shown = {type(frame) for example in examples() if example.way == way for frame in example.frames}
    assert shown == set(UNIONS[way])
    section = (
        PAGE.split(f"## {way[0].capitalize()} socket")[1].split(f"### {way[1].capitalize()}")[1].split("<!--")[0]
    )
    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == [
        tag(kind) for kind in UNIONS[way]
    ]


def test_runs_inside_submit_examples_are_good() -> None:
    submits = [f for e in examples() if e.way == ("submission", "up") for f in e.frames if isinstance(f, Submit)]
    runs = [
        codec.decode_new_run(run, "runs[0]", limits.MAX_PAYLOAD_BYTES) for submit in submits for run in submit.runs
    ]
    assert len(runs) >= 3
    assert {run.priority for run in runs} == {0, 9}


@pytest.mark.parametrize("socket", ["worker", "submission"])
def test_diagram_and_table_are_the_order_in_the_code(socket: str) -> None:
    in_code = {
        (phase, direction, tag(kind)): after
        for direction in ("up", "down")
        for (phase, kind), after in RULES[socket, direction].items()
    }
    if socket == "submission":  # it never comes to these, which `error` has anyhow
        in_code = {c: p for c, p in in_code.items() if c[0] not in (Phase.AUTHENTICATED, Phase.SUBSCRIBING)}
    assert order(socket) == in_code


def test_the_complete_conversation_can_be_had() -> None:
    sockets = {"worker": worker_conversation(), "submission": submission_conversation()}
    story = examples(PAGE.split("## A complete conversation")[1])
    for example in story:
        for frame in example.frames:
            getattr(sockets[example.socket], example.direction)(frame)
    assert [socket.phase for socket in sockets.values()] == [Phase.CLOSING, Phase.CLOSING]


def test_error_codes_are_all_there() -> None:
    assert sorted(row[0] for row in rows("error codes")) == sorted(ErrorCode)


def test_close_codes_are_all_there_with_their_advice() -> None:
    table = {int(code): advice for code, _, advice in rows("close codes")}
    assert sorted(table) == sorted(CloseCode)
    assert {code for code, advice in table.items() if advice == "no"} == {
        code for code in CloseCode if not may_reconnect(code)
    }


def test_limits_are_those_in_the_code() -> None:
    assert [int(row[1]) for row in rows("limits")] == [
        limits.MAX_MESSAGE_BYTES,
        limits.MAX_PAYLOAD_BYTES,
        limits.MAX_DEPTH,
        limits.MAX_KEYS,
        limits.MAX_QUEUES,
        limits.MAX_LIMIT,
        limits.MAX_RUNS_PER_SUBMIT,
        limits.MAX_HEADERS_BYTES,
        limits.MAX_IDS,
        limits.MAX_IDS_PER_CANCEL,
        limits.MAX_UNPROCESSED_FRAMES,
        limits.MAX_UNPROCESSED_BYTES,
        limits.MAX_BAD_FRAMES,
    ]
