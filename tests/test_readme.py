"""The README's quick start does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
RUNLANE = (sys.executable, "-m", "runlane")


def python_blocks() -> dict[str, str]:
    """Return the README's Python files by the name in their first line."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    return dict(blocks)


def expected_output() -> str:
    """Return what the README says that its last command prints."""
    console = re.search(r"```console\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert console is not None
    return console[1].rpartition("\n$ ")[2].partition("\n")[2]


@contextmanager
def running(folder: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RUNLANE_")}
    process = subprocess.Popen(
        command, cwd=folder, env={**clean, **environment}, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_the_quick_start_is_short() -> None:
    lines = [line for block in python_blocks().values() for line in block.splitlines() if line.strip()]
    assert 5 < len(lines) <= 20


@pytest.mark.process
def test_the_quick_start_prints_what_it_says(tmp_path: Path) -> None:
    for name, block in python_blocks().items():
        (tmp_path / name).write_text(block, "utf-8")
    with running(tmp_path, *RUNLANE, "serve", "--port", "0") as broker:
        assert broker.stderr is not None
        url = re.search(r"listening on (http://\S+?),", broker.stderr.readline())
        assert url is not None
        with running(tmp_path, *RUNLANE, "worker", "tasks.py", RUNLANE_URL=url[1]):
            done = subprocess.run(
                (sys.executable, "main.py"),
                cwd=tmp_path,
                env={**os.environ, "RUNLANE_URL": url[1]},
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )
    assert done.stdout == expected_output()
