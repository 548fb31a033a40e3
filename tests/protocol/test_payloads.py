"""Payloads: bytes in, the same bytes out, and no deeper or longer than allowed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from runlane.protocol import codec
from runlane.protocol import messages as m
from runlane.protocol.errors import ErrorCode, FrameRefused
from runlane.protocol.limits import MAX_DEPTH
from runlane.protocol.payloads import ABSENT, check_payload, deeper_than

ID = "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90"

#: What a parser would spoil.
DELICATE = [
    b"null",
    b'""',
    b"{}",
    b"123456789012345678901234567890",
    b"1.0",
    b"1e2",
    b"-0",
    b"0.1000",
    b'{"a":1,"a":2}',
    b'{ "a" : [ 1 ,\t2 ,\r\n3 ] }',
    b'"\\u00e9\\/\\u2028"',
    '"é \U0001f600"'.encode(),
    b'"}]{[\\"\\\\"',
]
_TRICKY = st.text(st.sampled_from('[]{}"\\,:aé \n'), max_size=12)
_NESTED: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | _TRICKY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TRICKY, inner, max_size=3),
    max_leaves=30,
)


@pytest.mark.parametrize("payload", DELICATE)
def test_bytes_out_are_bytes_in(payload: bytes) -> None:
    message = (
        f'{{"type":"finished","id":"{ID}","attempt":1,"state":{{"type":"FAILED"}},"result":'.encode() + payload
    )
    for text in (message + b"}", b"[" + message + b' , "error": ' + payload + b"\n}]"):
        (frame,) = codec.WORKER_UP.decode(text)
        assert isinstance(frame, m.Finished)
        assert bytes(frame.result) == payload
        assert bytes(frame.error) in (b"", payload)
        pushed = codec.encode(
            m.RunFinished(id=ID, state=m.RunState(type=m.StateType.FAILED, name="F"), result=frame.result)
        )
        assert b'"result":' + payload + b"}" in pushed


@pytest.mark.parametrize("payload", [b'{ "a": 1.0 , "a":12345678901234567890123 }', b"{}"])
def test_parameters_of_a_submit_are_what_is_pushed(payload: bytes) -> None:
    text = (
        f'{{"type":"submit","ref":1,"runs":[{{"id":"{ID}","task_key":"a","parameters":'.encode() + payload + b"}]}"
    )
    (submit,) = codec.SUBMISSION_UP.decode(text)
    assert isinstance(submit, m.Submit)
    run = codec.decode_new_run(submit.runs[0], "runs[0]", 100)
    assert bytes(run.parameters) == payload
    pushed = codec.encode(m.Runs(runs=(m.PushedRun(id=ID, attempt=1, task_key="a", parameters=run.parameters),)))
    assert payload in pushed


def test_null_is_a_result_and_nothing_is_none() -> None:
    def finished(result: Raw) -> bytes:
        return codec.encode(m.Finished(id=ID, attempt=1, state=m.FinalState(type="COMPLETED"), result=result))

    assert finished(Raw(b"null")).endswith(b',"result":null}')
    assert b"result" not in finished(ABSENT)
    (frame,) = codec.WORKER_UP.decode(finished(ABSENT))
    assert isinstance(frame, m.Finished)
    assert frame.result == ABSENT


def _naive_depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_naive_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_naive_depth, value), default=0)
    return 0


@settings(derandomize=True, max_examples=300)
@given(_NESTED, st.booleans())
def test_depth_is_what_counting_levels_gives(value: Any, spaced: bool) -> None:
    data = json.dumps(value, ensure_ascii=spaced, indent=1 if spaced else None).encode()
    depth = _naive_depth(value)
    assert [deeper_than(data, limit) for limit in range(depth + 2)] == [True] * depth + [False, False]


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"]":', b"}]")])
def test_64_levels_are_allowed_and_65_are_not(opening: bytes, closing: bytes) -> None:
    levels = opening.count(b"[") + opening.count(b"{")
    good = opening * (MAX_DEPTH // levels) + b'"[[["' + closing * (MAX_DEPTH // levels)
    check_payload(Raw(good), "result")
    check_payload(Raw(b"[" + b",".join([b"[]"] * 1000) + b"]"), "result")
    with pytest.raises(FrameRefused, match=r"^result nests deeper than 64 levels$") as refusal:
        check_payload(Raw(b"[" + good + b"]"), "result")
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.TOO_DEEP, "result")


def test_size_is_checked_to_the_byte() -> None:
    check_payload(Raw(b'"' + b"x" * 98 + b'"'), "error", 100)
    with pytest.raises(FrameRefused, match=r"^error has 101 bytes; at most 100$") as refusal:
        check_payload(Raw(b'"' + b"x" * 99 + b'"'), "error", 100)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.TOO_LARGE, "error")
