"""The generator covers every frame and field, and a real broker bears a little of all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

import msgspec
import pytest

from runlane.protocol import messages as m
from runlane_broker.prefect.event_filters import read_subscription
from runlane_broker.prefect.reading import read_event

from . import prefect
from .campaign import campaign
from .cases import BAD, DECODERS, PHASES, Source, bad_frames, frames_of, table, tag_of, whole
from .frames import plan
from .raw import SOCKETS


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_a_frame_of_each_kind_can_be_made_and_is_valid(phase: object) -> None:
    assert phase in PHASES
    for kind in frames_of(phase):  # type: ignore[arg-type]
        for seed in range(30):
            text = whole(Source(seed), Source(seed).frame(kind))
            (frame,) = DECODERS[phase.socket].decode(text)  # type: ignore[attr-defined]
            assert type(frame) is kind, (text, frame)


def test_the_table_has_every_frame_in_every_phase_with_every_field_missing_and_wrong() -> None:
    rows = list(table(Source(1)))
    for phase in PHASES:
        for kind in frames_of(phase):
            tag = f'"type":"{tag_of(kind)}"'.encode()
            count = sum(here is phase and tag in messages[0].replace(b'": "', b'":"') for here, messages in rows)
            required = [f for f in msgspec.structs.fields(kind) if f.required]
            assert count > (len(required) + 1) * (len(BAD) - 1) - len(BAD)


def test_most_of_what_is_spoilt_is_refused_and_some_is_not() -> None:
    source = Source(2)
    verdicts = [bad_frames("worker", source.message(m.Finished)) for _ in range(2000)]
    assert verdicts.count(None) > 200
    assert verdicts.count(0) > 200
    assert sum(verdict is not None and verdict > 0 for verdict in verdicts) > 200


def test_the_same_seed_gives_the_same_frames() -> None:
    first, second = (list(islice(plan(3, 2000), 500)) for _ in range(2))
    assert [phase for phase, _ in first] == [phase for phase, _ in second]
    assert sum(len(messages) for _, messages in plan(3, 2000)) == 2000


def test_all_sockets_are_spoken_to() -> None:
    assert {phase.socket for phase, _ in plan(5, 3000)} == set(SOCKETS)


@pytest.mark.parametrize("kind", ["events in", "events out"])
def test_what_is_made_for_the_sockets_of_events_is_understood_where_it_is_not_spoilt(kind: str) -> None:
    read: Callable[[bytes], object] = {"events in": read_event, "events out": read_subscription}[kind]
    for seed in range(30):
        source = Source(seed)
        assert read(whole(source, prefect.made(source, kind))) is not None


@pytest.mark.process
def test_a_broker_bears_it_and_serves_others_meanwhile() -> None:
    figures = asyncio.run(campaign(600, 4, 1.0, aside=False))
    assert figures["frames"] == 600
    assert figures["connections that were not closed"] == 0
    assert figures["lines of the log that must not be"] == 0
    assert figures["healthy runs"] > 50
    assert figures["healthy runs lost"] == 0
    assert figures["other runs stuck"] == 0
