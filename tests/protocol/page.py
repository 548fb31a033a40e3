"""Reads PROTOCOL.md: its examples, tables and diagrams."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import runlane.protocol
from runlane.protocol import codec, conversation
from runlane.protocol import messages as m
from runlane.protocol.conversation import Phase

PAGE = Path(runlane.protocol.__file__).with_name("PROTOCOL.md").read_text(encoding="utf-8")

_EXAMPLE = re.compile(r"<!-- (worker|submission) (up|down) -->\n```json\n(.*?)```", re.DOTALL)

DECODERS: dict[tuple[str, str], codec.FrameDecoder[Any]] = {
    ("worker", "up"): codec.WORKER_UP,
    ("worker", "down"): codec.WORKER_DOWN,
    ("submission", "up"): codec.SUBMISSION_UP,
    ("submission", "down"): codec.SUBMISSION_DOWN,
}
UNIONS: dict[tuple[str, str], tuple[type[m.Frame], ...]] = {
    ("worker", "up"): get_args(m.WorkerUp),
    ("worker", "down"): get_args(m.WorkerDown),
    ("submission", "up"): get_args(m.SubmissionUp),
    ("submission", "down"): get_args(m.SubmissionDown),
}
RULES = {
    ("worker", "up"): conversation.WORKER_UP_RULES,
    ("worker", "down"): conversation.WORKER_DOWN_RULES,
    ("submission", "up"): conversation.SUBMISSION_UP_RULES,
    ("submission", "down"): conversation.SUBMISSION_DOWN_RULES,
}


@dataclass(frozen=True)
class Example:
    """One message of the page."""

    socket: str
    direction: str
    text: str

    @property
    def way(self) -> tuple[str, str]:
        return self.socket, self.direction

    @property
    def frames(self) -> tuple[m.Frame, ...]:
        return DECODERS[self.way].decode(self.text)


def examples(text: str = PAGE) -> list[Example]:
    """Return the examples in their order."""
    return [Example(*match.groups()) for match in _EXAMPLE.finditer(text)]


def tag(kind: type[m.Frame]) -> str:
    """Return a frame's type on the wire."""
    return str(kind.__struct_config__.tag)


def rows(marker: str) -> list[list[str]]:
    """Return the cells of the table under a marker, without its head, without back quotes and stars."""
    lines = PAGE.split(f"<!-- {marker} -->\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return [
        [cell.strip().replace("`", "").replace("*", "") for cell in line.strip("|").split("|")]
        for line in lines[2:]
    ]


def order(socket: str) -> dict[tuple[Phase, str, str], Phase]:
    """Return the legal order as the page has it: (phase, direction, type) -> phase."""
    diagram = PAGE.split(f"<!-- order: {socket} -->\n", 1)[1].split("```\n", 1)[0]
    cells = {
        (Phase[before], direction, kind): Phase[after]
        for before, after, direction, kind in re.findall(r"(\w+) --> (\w+): (up|down) (\w+)", diagram)
    }
    for frame, places in rows(f"places: {socket}"):
        direction, kind = frame.split()
        for place in places.split(", "):
            cells[Phase[place], direction, kind] = Phase[place]
    return cells
