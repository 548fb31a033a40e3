"""Fixtures of the command's tests: each in a folder of its own, with an environment that says nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import Broker, Run, run_main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; no file above it is read."""
    for name in [name for name in os.environ if name.startswith("RUNLANE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs configure the root logger; what they do ends with the test."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)


@pytest.fixture
def runlane(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, in this process: `runlane("status", "--json")` returns its exit code and output."""
    return lambda *argv: run_main(capsys, argv)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker with a worker, on a thread of its own."""
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker
