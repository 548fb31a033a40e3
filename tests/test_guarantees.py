"""The page of guarantees names tests that exist, and shows the table that the protocol goes by."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from runlane.protocol import messages as m
from runlane.protocol.conversation import SUBMISSION_UP_RULES, WORKER_UP_RULES, Phase

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAMED: Final = sorted(set(re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", PAGE)))


def defined(path: Path) -> set[str]:
    """Return the names of the functions and classes of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda value: value or "all of it")
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert (ROOT / path).exists()
    assert not name or name in defined(ROOT / path)


def test_every_invariant_is_there_and_is_held_by_something() -> None:
    rows = re.findall(r"^\| I(\d+) \| .*? \| (.*) \|$", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 26))
    assert all("`tests/" in tests for _, tests in rows)


def cell(rules: Mapping[Any, Any], phase: Phase, kind: type[m.Frame]) -> str:
    """Say what becomes of a frame."""
    if phase is Phase.CLOSING:
        return "ignored"
    if (phase, kind) in rules:
        return "taken"
    return "1008" if phase is Phase.CONNECTED else "refused"


def table(rules: Mapping[Any, Any], union: Any, head: str, phases: tuple[Phase, ...]) -> str:
    """Return the table as the page has it."""
    lines = [f"| {head} | " + " | ".join(phase.name for phase in phases) + " |", "|---" * (len(phases) + 1) + "|"]
    for kind in get_args(union):
        cells = " | ".join(cell(rules, phase, kind) for phase in phases)
        lines.append(f"| `{kind.__struct_config__.tag}` | {cells} |")
    return "\n".join(lines)


WORKER: Final = (Phase.CONNECTED, Phase.AUTHENTICATED, Phase.SUBSCRIBING, Phase.READY, Phase.CLOSING)
PRODUCER: Final = (Phase.CONNECTED, Phase.READY, Phase.CLOSING)


@pytest.mark.parametrize(
    "expected",
    [
        table(WORKER_UP_RULES, m.WorkerUp, "worker socket", WORKER),
        table(SUBMISSION_UP_RULES, m.SubmissionUp, "submission socket", PRODUCER),
    ],
    ids=["worker", "producer"],
)
def test_the_page_shows_the_table_of_the_protocol(expected: str) -> None:
    assert f"\n{expected}\n" in PAGE, f"it should be:\n{expected}"
