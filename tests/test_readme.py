"""The README's quick start and its session with the API do what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.edges.harness import Host

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


# The API --------------------------------------------------------------------------------------------------------


def api_session() -> list[tuple[str, str]]:
    """Return the commands of the section on the API, each with what it is said to print."""
    section = README.read_text("utf-8").partition("\n## The API\n")[2].partition("\n## ")[0]
    console = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert console is not None
    session = []
    for text in re.split(r"^\$ ", console[1], flags=re.MULTILINE)[1:]:
        lines = text.splitlines()
        end = next(i for i in range(1, len(lines) + 1) if "\n".join(lines[:i]).count("'") % 2 == 0)
        session.append(("\n".join(lines[:end]), "\n".join(lines[end:])))
    return session


def curl(command: str, base: str) -> httpx.Response:
    """Do what curl would, as far as the README goes: data are posted, as a form if nobody says otherwise."""
    program, *words = shlex.split(command)
    assert program == "curl"
    method, data, url = None, None, ""
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-d":
            data = words.pop(0).replace("\n", "")
        else:
            assert not word.startswith("-")
            url = word.replace("http://127.0.0.1:4200", base)
    headers = {} if data is None else {"Content-Type": "application/x-www-form-urlencoded"}
    return httpx.request(
        method or ("GET" if data is None else "POST"), url, content=data, headers=headers, trust_env=False
    )


def fits(shown: Any, real: Any) -> bool:
    """Say whether an answer is what the README shows; "…" stands for more."""
    if isinstance(shown, dict):
        more = shown.pop("…", False)
        return (more or set(shown) == set(real)) and all(fits(value, real[key]) for key, value in shown.items())
    if isinstance(shown, list):
        return len(shown) == len(real) and all(map(fits, shown, real))
    return bool(shown == real)


def test_the_session_with_the_api_prints_what_it_says(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.start()
    try:
        session = api_session()
        assert len(session) > 5
        for command, output in session:
            answer = curl(command, host.url)
            if not output:
                assert answer.content == b"", command
                continue
            shown = json.loads(re.sub(r"…(?=[}\]])", '"…": true', output))
            assert fits(shown, answer.json()), (command, answer.text)
    finally:
        host.stop()
