"""Frames to text and back, and what becomes of text that is no frame."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlane.protocol import codec
from runlane.protocol import messages as m
from runlane.protocol.closing import CloseCode
from runlane.protocol.codec import FrameDecoder
from runlane.protocol.errors import ErrorCode, FrameRefused, ProtocolViolation
from runlane.protocol.limits import MAX_BAD_FRAMES, MAX_KEYS, MAX_MESSAGE_BYTES, MAX_QUEUES
from tests.support import DEEP

from .page import DECODERS, UNIONS, examples
from .strategies import structs

ID = "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90"
KINDS = [(way, kind) for way, kinds in UNIONS.items() for kind in kinds]

FRAME = ErrorCode.INVALID_FRAME
TYPE = ErrorCode.UNKNOWN_TYPE


# --- There and back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "kind"), KINDS, ids=lambda value: getattr(value, "__name__", None))
def test_frames_come_out_as_they_went_in(way: tuple[str, str], kind: type[m.Frame]) -> None:
    @settings(derandomize=True, max_examples=25, deadline=None)
    @given(structs(kind))
    def check(frame: m.Frame) -> None:
        data = codec.encode(frame)
        assert DECODERS[way].decode(data) == (frame,)
        assert DECODERS[way].decode(data.decode()) == (frame,)
        assert DECODERS[way].decode(b"[" + data + b", " + data + b"]") == (frame, frame)

    check()


@settings(derandomize=True, max_examples=100, deadline=None)
@given(structs(m.NewRun), st.dictionaries(st.text(max_size=3), st.integers()))
def test_new_runs_come_out_as_they_went_in(run: m.NewRun, parameters: dict[str, int]) -> None:
    run = msgspec.structs.replace(run, parameters=msgspec.Raw(msgspec.json.encode(parameters)))
    submit = m.Submit(ref=1, runs=(codec.encode_part(run),))
    (frame,) = codec.SUBMISSION_UP.decode(codec.encode(submit))
    assert isinstance(frame, m.Submit)
    assert codec.decode_new_run(frame.runs[0], "runs[0]", 1000) == run


def test_what_has_its_default_is_not_sent() -> None:
    assert codec.encode(m.Beat()) == b'{"type":"beat"}'
    assert bytes(codec.encode_part(m.NewRun(id=ID, task_key="a"))) == f'{{"id":"{ID}","task_key":"a"}}'.encode()


def test_unknown_fields_are_ignored_and_null_is_nothing() -> None:
    assert codec.WORKER_UP.decode('{"new": [{"a": NULL}], "type": "auth"}'.replace("NULL", "null")) == (m.Auth(),)
    assert codec.WORKER_UP.decode('{"type": "auth", "token": null}') == (m.Auth(),)


# --- Several frames in a message ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[]", " [ ] ", "\n[\t]\r\n"])
def test_no_frames_are_no_frames(text: str) -> None:
    assert codec.WORKER_UP.decode(text) == ()


def test_a_bad_frame_is_refused_in_its_place() -> None:
    text = ' [{"type":"beat","n":1}, {"type":"limit","limit":-1}, 7, {"type":"quit"}, {"type":"nope"}]'
    beat, limit, seven, leave, nope = codec.WORKER_UP.decode(text)
    assert (beat, leave) == (m.Beat(n=1), m.Quit())
    refusals = [limit, seven, nope]
    assert [(r.code, r.frame, r.field) for r in refusals if isinstance(r, FrameRefused)] == [
        (FRAME, "limit", "limit"),
        (TYPE, None, "type"),
        (TYPE, "nope", "type"),
    ]


def test_what_follows_the_last_bad_frame_that_is_borne_is_not_read() -> None:
    frames = codec.WORKER_UP.decode("[" + ",".join(['{"type":"beat"}', *["0"] * 100_000, '{"type":"beat"}']) + "]")
    assert frames[0] == m.Beat()
    assert [type(frame) for frame in frames[1:]] == [FrameRefused] * (MAX_BAD_FRAMES + 1)


@settings(derandomize=True)
@given(st.lists(st.integers(1, 30)), st.integers(2, 60))
def test_packing_keeps_the_order_and_the_limit(sizes: list[int], limit: int) -> None:
    frames = [b'"' + b"x" * size + b'"' for size in sizes]
    messages = list(codec.pack(frames, limit))
    read: list[list[str]] = [
        msgspec.json.decode(msg) if msg[:1] == b"[" else [msgspec.json.decode(msg)] for msg in messages
    ]
    assert [len(text) for message in read for text in message] == sizes
    assert all(len(msg) <= limit for msg, texts in zip(messages, read, strict=True) if len(texts) > 1)
    for earlier, later in zip(messages, read[1:], strict=False):  # none could have taken one more
        brackets = 0 if earlier[:1] == b"[" else 2
        assert len(earlier) + brackets + 1 + len(later[0]) + 2 > limit


# --- Bad input ---------------------------------------------------------------------------------------------


def started(**fields: Any) -> str:
    return msgspec.json.encode({"type": "started", "id": ID, "attempt": 1} | fields).decode()


def subscribe(**fields: Any) -> str:
    return msgspec.json.encode(
        {"type": "subscribe", "client_id": "w", "keys": ["a"], "limit": 1} | fields
    ).decode()


def progress(current: str) -> str:
    return f'{{"type":"progress","id":"{ID}","attempt":1,"current":{current}}}'


def finished(**fields: Any) -> str:
    frame = {"type": "finished", "id": ID, "attempt": 1, "state": {"type": "COMPLETED"}} | fields
    return msgspec.json.encode(frame).decode()


def submit(**fields: Any) -> str:
    return msgspec.json.encode({"type": "submit", "ref": 1, "runs": []} | fields).decode()


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=map(" ".join, DECODERS))
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(" ", id="blank"),
        pytest.param("auth", id="no JSON"),
        pytest.param("null", id="null"),
        pytest.param("true", id="true"),
        pytest.param("17", id="number"),
        pytest.param('"auth"', id="string"),
        pytest.param("{", id="cut"),
        pytest.param('{"type":"beat"', id="cut before its end"),
        pytest.param('{"type":"beat"}}', id="one brace more"),
        pytest.param('{"type":"beat"}{"type":"beat"}', id="two without an array"),
        pytest.param('{"type":"beat"}\n{"type":"beat"}', id="two lines"),
        pytest.param('[{"type":"beat"},]', id="comma at the end of an array"),
        pytest.param('{"type":"beat",}', id="comma at the end of an object"),
        pytest.param("{'type':'beat'}", id="single quotes"),
        pytest.param('{"type":"beat","n":NaN}', id="NaN"),
        pytest.param('{"type":"beat","n":-Infinity}', id="-Infinity"),
        pytest.param('{"type":"beat","x":NaN}', id="NaN in an unknown field"),
        pytest.param('{"type":"beat","n":01}', id="leading zero"),
        pytest.param('{"type":5, garbage', id="cut after a wrong field"),
        pytest.param('{"type":"nope", garbage', id="cut after a wrong type"),
        pytest.param('[{"type":"nope"}, {"type":"beat"', id="cut after a wrong frame"),
        pytest.param("\ufeff{}", id="byte order mark"),
        pytest.param("\0", id="NUL"),
        pytest.param('{"type":"beat\0"}', id="NUL in a string"),
        pytest.param('{"type":"be\nat"}', id="line feed in a string"),
        pytest.param('{"type":"\\q"}', id="unknown escape"),
        pytest.param('{"type":"\\ud800"}', id="lone surrogate, escaped"),
        pytest.param('{"type":"beat","x":"\ud800"}', id="lone surrogate"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b'{"type":"beat\xff"}', id="not UTF-8 in the type"),
        pytest.param(b'{"type":"beat","x":"\xff"}', id="not UTF-8 in an unknown field"),
        pytest.param('{"type":"beat"}'.encode("utf-16"), id="UTF-16"),
        pytest.param("[" * DEEP, id="too deep, open"),
        pytest.param('{"type":"beat","x":' + "[" * DEEP + "]" * DEEP + "}", id="too deep"),
        pytest.param('{"type":"beat","x":' + '{"a":' * DEEP + "1" + "}" * DEEP + "}", id="objects too deep"),
    ],
)
def test_what_is_no_message_ends_the_conversation(decoder: FrameDecoder[Any], text: str | bytes) -> None:
    with pytest.raises(ProtocolViolation) as violation:
        decoder.decode(text)
    assert violation.value.code == CloseCode.PROTOCOL_VIOLATION
    assert violation.value.reason.startswith(("not JSON: ", "nested too deeply", "a message must be"))


@pytest.mark.parametrize(
    ("text", "code", "frame", "field"),
    [
        # no type, or none of ours
        ("{}", TYPE, None, "type"),
        ("[[]]", TYPE, None, "type"),
        ("[null]", TYPE, None, "type"),
        ('{"type":null}', TYPE, None, "type"),
        ('{"type":5}', TYPE, None, "type"),
        ('{"type":["beat"]}', TYPE, None, "type"),
        ('{"type":""}', TYPE, "", "type"),
        ('{"type":"Beat"}', TYPE, "Beat", "type"),
        ('{"type":"beat "}', TYPE, "beat ", "type"),
        ('{"Type":"beat"}', TYPE, None, "type"),
        ('{"type":"submit"}', TYPE, "submit", "type"),
        ('{"type":"recorded"}', TYPE, "recorded", "type"),
        ('{"type":"missing required field `id`"}', TYPE, "missing required field `id`", "type"),
        ('{"type":"x - at `$.id`"}', TYPE, "x - at `$.id`", "type"),
        # doubled keys: the last counts, but a type must not change its mind
        ('{"type":"beat","type":"quit"}', TYPE, "quit", "type"),
        ('{"type":"beat","n":1,"n":-1}', FRAME, "beat", "n"),
        # missing
        ('{"type":"started"}', FRAME, "started", "id"),
        (f'{{"type":"started","id":"{ID}"}}', FRAME, "started", "attempt"),
        (subscribe(running=[{"id": ID}]), FRAME, "subscribe", "running[0].attempt"),
        ('{"type":"limit"}', FRAME, "limit", "limit"),
        (finished(state={}), FRAME, "finished", "state.type"),
        # of a wrong type
        ('{"type":"beat","n":true}', FRAME, "beat", "n"),
        ('{"type":"beat","n":"1"}', FRAME, "beat", "n"),
        ('{"type":"beat","n":1.0}', FRAME, "beat", "n"),
        ('{"type":"beat","n":null}', FRAME, "beat", "n"),
        ('{"type":"auth","token":5}', FRAME, "auth", "token"),
        (started(id=7), FRAME, "started", "id"),
        (started(at=1_700_000_000), FRAME, "started", "at"),
        (subscribe(keys="a"), FRAME, "subscribe", "keys"),
        (subscribe(keys=[None]), FRAME, "subscribe", "keys[0]"),
        (subscribe(running={}), FRAME, "subscribe", "running"),
        (finished(state="COMPLETED"), FRAME, "finished", "state"),
        (finished(retriable=1), FRAME, "finished", "retriable"),
        # out of range
        ('{"type":"beat","n":-1}', FRAME, "beat", "n"),
        ('{"type":"beat","n":2147483648}', FRAME, "beat", "n"),
        ('{"type":"beat","n":1' + "0" * 5000 + "}", FRAME, "beat", "n"),
        (started(attempt=0), FRAME, "started", "attempt"),
        (started(attempt=2**31), FRAME, "started", "attempt"),
        (started(at="2026-03-01T08:00:00"), FRAME, "started", "at"),
        (started(at="2026-02-30T08:00:00Z"), FRAME, "started", "at"),
        (started(at="yesterday"), FRAME, "started", "at"),
        (subscribe(limit=1001), FRAME, "subscribe", "limit"),
        (subscribe(keys=[]), FRAME, "subscribe", "keys"),
        (subscribe(keys=[], queues=[]), FRAME, "subscribe", "keys"),
        (subscribe(keys=["a"] * (MAX_KEYS + 1)), FRAME, "subscribe", "keys"),
        (subscribe(queues=["p/q"] * (MAX_QUEUES + 1)), FRAME, "subscribe", "queues"),
        (subscribe(queues=["p/q", "q"]), FRAME, "subscribe", "queues[1]"),
        (subscribe(queues=["p/q/r"]), FRAME, "subscribe", "queues[0]"),
        (subscribe(queues=["p/"]), FRAME, "subscribe", "queues[0]"),
        (subscribe(queues="p/q"), FRAME, "subscribe", "queues"),
        (subscribe(client_id=""), FRAME, "subscribe", "client_id"),
        (subscribe(client_id="x" * 201), FRAME, "subscribe", "client_id"),
        (finished(state={"type": "RUNNING"}), FRAME, "finished", "state.type"),
        (finished(retry_after=-0.1), FRAME, "finished", "retry_after"),
        (finished(retry_after=315_360_001), FRAME, "finished", "retry_after"),
        (progress("1e999"), FRAME, "progress", "current"),
        (progress("-1e999"), FRAME, "progress", "current"),
        (progress("1" + "0" * 400), FRAME, "progress", "current"),
        (progress("true"), FRAME, "progress", "current"),
        # ids and keys
        (started(id=ID + "\n"), FRAME, "started", "id"),
        (started(id=ID.upper()), FRAME, "started", "id"),
        (started(id=ID.replace("-", "")), FRAME, "started", "id"),
        (subscribe(session=ID + "\n"), FRAME, "subscribe", "session"),
        (subscribe(keys=["a\n"]), FRAME, "subscribe", "keys[0]"),
        (subscribe(keys=["a", "b c"]), FRAME, "subscribe", "keys[1]"),
        (subscribe(keys=["a", ""]), FRAME, "subscribe", "keys[1]"),
        (subscribe(keys=["x" * 201]), FRAME, "subscribe", "keys[0]"),
        ('{"type":"release","runs":[{"id":"x","attempt":1}]}', FRAME, "release", "runs[0].id"),
    ],
)  # fmt: skip
def test_a_wrong_frame_is_refused_by_name(text: str, code: ErrorCode, frame: str | None, field: str) -> None:
    (refusal,) = codec.WORKER_UP.decode(text)
    assert isinstance(refusal, FrameRefused)
    assert (refusal.code, refusal.frame, refusal.field, refusal.ref) == (code, frame, field, None)
    assert refusal.message


@pytest.mark.parametrize(
    ("text", "code", "field", "ref"),
    [
        (submit(runs="x"), FRAME, "runs", 1),
        (submit(runs="x", ref="mine"), FRAME, "runs", "mine"),
        (submit(ref=True), FRAME, "ref", None),
        (submit(ref=-1), FRAME, "ref", None),
        (submit(ref=2**53 + 1), FRAME, "ref", None),
        (submit(ref=1.5), FRAME, "ref", None),
        (submit(ref="x" * 65), FRAME, "ref", None),
        (submit(ref=[[]]), FRAME, "ref", None),
        ('{"type":"submit","runs":[]}', FRAME, "ref", None),
        ('{"type":"cancel","ref":3,"ids":["x"]}', FRAME, "ids[0]", 3),
        ('{"type":"nope","ref":3}', TYPE, "type", 3),
    ],
)
def test_a_refusal_has_the_ref_of_the_frame(text: str, code: ErrorCode, field: str, ref: int | str | None) -> None:
    (refusal,) = codec.SUBMISSION_UP.decode(text)
    assert isinstance(refusal, FrameRefused)
    assert (refusal.code, refusal.field, refusal.ref) == (code, field, ref)


NEW_RUN: dict[str, Any] = {"id": ID, "task_key": "a"}


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        (7, ErrorCode.INVALID_FIELD, "runs[3]"),
        ({}, ErrorCode.INVALID_FIELD, "runs[3].id"),
        ({"id": ID}, ErrorCode.INVALID_FIELD, "runs[3].task_key"),
        (NEW_RUN | {"id": ID + "\n"}, ErrorCode.INVALID_FIELD, "runs[3].id"),
        (NEW_RUN | {"task_key": "a\n"}, ErrorCode.INVALID_FIELD, "runs[3].task_key"),
        (NEW_RUN | {"task_key": ""}, ErrorCode.INVALID_FIELD, "runs[3].task_key"),
        (NEW_RUN | {"priority": 10}, ErrorCode.INVALID_FIELD, "runs[3].priority"),
        (NEW_RUN | {"priority": -1}, ErrorCode.INVALID_FIELD, "runs[3].priority"),
        (NEW_RUN | {"priority": True}, ErrorCode.INVALID_FIELD, "runs[3].priority"),
        (
            NEW_RUN | {"scheduled_time": "2026-03-01T08:00:00"},
            ErrorCode.INVALID_FIELD,
            "runs[3].scheduled_time",
        ),
        (NEW_RUN | {"tags": ["ok", ""]}, ErrorCode.INVALID_FIELD, "runs[3].tags[1]"),
        (NEW_RUN | {"tags": ["t"] * 33}, ErrorCode.INVALID_FIELD, "runs[3].tags"),
        (NEW_RUN | {"retries": 1001}, ErrorCode.INVALID_FIELD, "runs[3].retries"),
        (NEW_RUN | {"retry_delay": -1}, ErrorCode.INVALID_FIELD, "runs[3].retry_delay"),
        (NEW_RUN | {"retry_delay": [1, -1]}, ErrorCode.INVALID_FIELD, "runs[3].retry_delay[1]"),
        (NEW_RUN | {"retry_jitter": 11}, ErrorCode.INVALID_FIELD, "runs[3].retry_jitter"),
        (NEW_RUN | {"timeout": 0}, ErrorCode.INVALID_FIELD, "runs[3].timeout"),
        (NEW_RUN | {"idempotency_key": ""}, ErrorCode.INVALID_FIELD, "runs[3].idempotency_key"),
        (NEW_RUN | {"headers": {"a": 1}}, ErrorCode.INVALID_FIELD, "runs[3].headers[...]"),
        (NEW_RUN | {"headers": {str(n): "" for n in range(33)}}, ErrorCode.INVALID_FIELD, "runs[3].headers"),
        (NEW_RUN | {"parameters": [1]}, ErrorCode.INVALID_FIELD, "runs[3].parameters"),
        (NEW_RUN | {"parameters": None}, ErrorCode.INVALID_FIELD, "runs[3].parameters"),
        (NEW_RUN | {"parameters": {"a": "x" * 100}}, ErrorCode.TOO_LARGE, "runs[3].parameters"),
    ],
)
def test_one_run_of_a_submit_is_refused_alone(fields: Any, code: ErrorCode, field: str) -> None:
    good = msgspec.json.encode(NEW_RUN)
    (frame,) = codec.SUBMISSION_UP.decode(
        b'{"type":"submit","ref":1,"runs":[%b,%b]}' % (good, msgspec.json.encode(fields))
    )
    assert isinstance(frame, m.Submit)
    assert codec.decode_new_run(frame.runs[0], "runs[0]", 100) == m.NewRun(id=ID, task_key="a")
    with pytest.raises(FrameRefused) as refusal:
        codec.decode_new_run(frame.runs[1], "runs[3]", 100)
    assert (refusal.value.code, refusal.value.field) == (code, field)


@pytest.mark.parametrize("levels", [64, 65])
def test_parameters_may_nest_64_levels_deep(levels: int) -> None:
    nested = "[" * (levels - 1) + "]" * (levels - 1)
    run = f'{{"id":"{ID}","task_key":"a","parameters":{{"a":{nested}}}}}'
    if levels == 64:
        codec.decode_new_run(run.encode(), "runs[0]", 1000)
        return
    with pytest.raises(FrameRefused) as refusal:
        codec.decode_new_run(run.encode(), "runs[0]", 1000)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.TOO_DEEP, "runs[0].parameters")


def test_a_run_that_could_be_read_over_but_not_read_is_refused_alone() -> None:
    """Text that only turns out to be none, or nesting that only turns out too deep, when it is looked at."""
    half = f'{{"id":"{ID}","task_key":"a","name":"\\ud800\\u0041......"}}'.encode()
    with pytest.raises(FrameRefused, match="not JSON") as refusal:
        codec.decode_new_run(half, "runs[0]", 1000)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.INVALID_FIELD, "runs[0]")

    deep = b'{"parameters":%b' % (b"[" * DEEP)
    with pytest.raises(FrameRefused) as refusal:
        codec.decode_new_run(deep, "runs[0]", 1000)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.TOO_DEEP, "runs[0]")


@pytest.mark.parametrize(
    "text", ['{"type":"%s"}', '{"type":"finished","id":"' + ID + '","attempt":1,"state":{"type":"%s"}}']
)
def test_a_refusal_is_short_however_long_the_frame(text: str) -> None:
    (refusal,) = codec.WORKER_UP.decode(text % ("é" * (MAX_MESSAGE_BYTES // 3)))
    assert isinstance(refusal, FrameRefused)
    assert refusal.field == ("type" if refusal.code is TYPE else "state.type")
    error = m.Error(code=refusal.code, message=refusal.message, frame=refusal.frame, field=refusal.field)
    assert len(codec.encode(error)) < 3000
    assert refusal.message.endswith(f"- at `$.{refusal.field}`")


# --- Garbage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", examples(), ids=lambda example: " ".join(example.way))
def test_no_beginning_of_a_message_is_a_message(example: Any) -> None:
    data = example.text.strip().encode()
    decoder = DECODERS[example.way]
    for end in range(len(data)):
        for cut in (data[:end], data[:end] + b"\xff", data[:end] + b"\0"):
            with pytest.raises(ProtocolViolation):
                decoder.decode(cut)


@pytest.mark.parametrize("example", examples(), ids=lambda example: " ".join(example.way))
def test_a_changed_byte_is_never_more_than_a_refusal(example: Any) -> None:
    data = example.text.strip().encode()
    for place in range(len(data)):
        for byte in b'\0\xff"{}[],:\\0-e ':
            _survives(DECODERS[example.way], data[:place] + bytes([byte]) + data[place + 1 :])


@settings(derandomize=True, max_examples=300)
@given(st.binary(max_size=40) | st.text(st.sampled_from('{}[]":,\\ue0123typbatn \n'), max_size=40))
def test_noise_is_never_more_than_a_violation(noise: bytes | str) -> None:
    for decoder in DECODERS.values():
        _survives(decoder, noise)


def _survives(decoder: FrameDecoder[Any], message: bytes | str) -> None:
    try:
        frames = decoder.decode(message)
    except ProtocolViolation:
        return
    for frame in frames:
        if not isinstance(frame, FrameRefused):
            codec.encode(frame)


def test_nesting_is_counted_against_no_ones_stack() -> None:
    """Whatever the depth of the caller, a deep message is a violation and not an error of the program."""

    def at_depth(frames: int) -> None:
        if frames:
            at_depth(frames - 1)
            return
        with pytest.raises(ProtocolViolation):
            codec.WORKER_UP.decode("[" * 100_000)

    at_depth(sys.getrecursionlimit() // 2)
