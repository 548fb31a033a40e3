"""Tasks keep their signatures: pyright and mypy, both strict, pass what is right and find what is wrong."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PASSES = HERE / "passes.py"
FAILS = sorted((HERE / "fails").glob("*.py"))

#: File and line.
Place = tuple[str, int]


def expected() -> set[Place]:
    """Return the lines that must fail."""
    return {
        (file.name, number)
        for file in FAILS
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if line.endswith("# error")
    }


def output_of(arguments: Sequence[str]) -> str:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def command(name: str) -> tuple[str, ...]:
    """Return how a checker is called."""
    if importlib.util.find_spec(name) is not None:
        return (sys.executable, "-m", name)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return (found,)


def by_pyright() -> Iterator[tuple[Place, str]]:
    output = output_of(
        (*command("pyright"), "--pythonpath", sys.executable, "--outputjson", "--project", str(HERE))
    )
    for found in json.loads(output)["generalDiagnostics"]:
        yield (Path(found["file"]).name, found["range"]["start"]["line"] + 1), found["message"]


def by_mypy() -> Iterator[tuple[Place, str]]:
    files = map(str, (PASSES, *FAILS))
    output = output_of((*command("mypy"), "--strict", "--python-executable", sys.executable, *files))
    for line in output.splitlines():
        if found := re.fullmatch(r"(\S+?):(\d+): error: (.*)", line):
            yield (Path(found[1]).name, int(found[2])), found[3]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", [by_pyright, by_mypy])
def test_checkers_find_what_is_wrong_and_nothing_else(checker: Callable[[], Iterator[tuple[Place, str]]]) -> None:
    assert len(expected()) > 30
    found = dict(checker())
    assert {place: text for place, text in found.items() if place not in expected()} == {}
    assert expected() - found.keys() == set()
