"""Every frame, in every phase, both ways, on both sockets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runlane.protocol import messages as m
from runlane.protocol.closing import CloseCode
from runlane.protocol.conversation import Conversation, Phase, submission_conversation, worker_conversation
from runlane.protocol.errors import ErrorCode, FrameRefused, ProtocolViolation
from runlane.protocol.limits import MAX_BAD_FRAMES

from .page import RULES, UNIONS, examples, order, tag

#: One of each class, whichever way and socket it belongs to.
FRAMES = {type(frame): frame for example in examples() for frame in example.frames}
NEW: dict[str, Any] = {"worker": worker_conversation, "submission": submission_conversation}


def at(socket: str, phase: Phase) -> Conversation:
    conversation: Conversation = NEW[socket]()
    conversation.phase = phase
    return conversation


def test_a_frame_of_each_class_is_tried() -> None:
    assert set(FRAMES) == {kind for kinds in UNIONS.values() for kind in kinds}


#: A submission socket has nothing to subscribe to.
PLACES = [
    (way, phase)
    for way in RULES
    for phase in Phase
    if way[0] == "worker" or phase not in (Phase.AUTHENTICATED, Phase.SUBSCRIBING)
]


@pytest.mark.parametrize(("way", "phase"), PLACES, ids=str)
def test_a_frame_is_in_the_table_or_refused_and_nothing_changes(way: tuple[str, str], phase: Phase) -> None:
    socket, direction = way
    legal = order(socket)
    for kind, frame in FRAMES.items():
        conversation = at(socket, phase)
        take = getattr(conversation, direction)
        after = legal.get((phase, direction, tag(kind))) if kind in UNIONS[way] else None
        if after is not None:
            take(frame)
            assert conversation.phase is after
        elif phase is Phase.CONNECTED:
            with pytest.raises(ProtocolViolation, match="expected auth") as violation:
                take(frame)
            assert violation.value.code == CloseCode.UNAUTHENTICATED
            assert conversation.phase is phase
        else:
            with pytest.raises(FrameRefused) as refusal:
                take(frame)
            assert refusal.value.code == ErrorCode.OUT_OF_ORDER
            assert refusal.value.frame == tag(kind)
            assert refusal.value.message == f"{tag(kind)} is not allowed while {phase.name.lower()}"
            assert conversation.phase is phase


@pytest.mark.parametrize("socket", NEW)
def test_closing_is_the_end(socket: str) -> None:
    ends = {after for (before, _, _), after in order(socket).items() if before is Phase.CLOSING}
    assert ends == {Phase.CLOSING}


def test_anything_but_auth_first_is_1008_even_if_it_is_no_frame() -> None:
    for new in NEW.values():
        conversation = new()
        with pytest.raises(ProtocolViolation) as violation:
            conversation.count_bad_frame()
        assert violation.value.code == CloseCode.UNAUTHENTICATED


def test_ten_bad_frames_are_borne_and_one_more_is_not() -> None:
    conversation = at("worker", Phase.READY)
    for _ in range(MAX_BAD_FRAMES):
        conversation.count_bad_frame()
    assert repr(conversation) == "<Conversation READY, 10 bad frames>"
    with pytest.raises(ProtocolViolation) as violation:
        conversation.count_bad_frame()
    assert violation.value.code == CloseCode.PROTOCOL_VIOLATION
    assert violation.value.reason == "more than 10 bad frames"


def test_a_conversation_belongs_to_one_connection() -> None:
    one, other = worker_conversation(), worker_conversation()
    one.up(m.Auth())
    assert (one.phase, other.phase) == (Phase.AUTHENTICATING, Phase.CONNECTED)


def test_frames_are_immutable() -> None:
    with pytest.raises(AttributeError):
        FRAMES[m.Beat].n = 3
    assert msgspec.structs.replace(FRAMES[m.Beat], n=3) == m.Beat(n=3)
