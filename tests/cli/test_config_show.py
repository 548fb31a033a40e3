"""`runlane config show`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from runlane.config.declared import SETTINGS
from runlane.config.sources import FILE_NAME

from .harness import Run

SECRET = "a-token-of-sixteen-characters"


@pytest.fixture
def told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something from every source."""
    monkeypatch.setenv("RUNLANE_LOG_LEVEL", "debug")
    monkeypatch.setenv("RUNLANE_TOKEN", SECRET)
    (folder / "runlane.toml").write_text('[broker]\nport = 1\n[broker.window_sizes]\n"a.b" = 2\n')
    (folder / "pyproject.toml").write_text('[tool.runlane.broker.timers]\ndrain = "5s"\n')


@pytest.mark.usefixtures("told")
def test_it_names_every_value_and_its_source(runlane: Run, folder: Path) -> None:
    done = runlane("config", "show", "--json")
    assert (done.code, done.err) == (0, "")
    shown = json.loads(done.out)
    assert list(shown) == list(SETTINGS)
    of = {key: (entry["value"], entry["source"]) for key, entry in shown.items()}
    assert of["broker.port"] == (1, f"broker.port in {folder / FILE_NAME}")
    assert of["broker.timers.drain"] == (5.0, f"tool.runlane.broker.timers.drain in {folder / 'pyproject.toml'}")
    assert of["broker.log_level"] == of["worker.log_level"] == ("debug", "RUNLANE_LOG_LEVEL")
    assert of["broker.token"] == of["client.token"] == ("********", "RUNLANE_TOKEN")
    assert of["client.url"] == ("http://127.0.0.1:4200", "default")
    assert SECRET not in done.out


@pytest.mark.usefixtures("told")
def test_what_people_see_is_a_file_of_settings(runlane: Run, folder: Path) -> None:
    done = runlane("config", "show")
    assert SECRET not in done.out
    assert done.out.startswith(f"# read: {folder / 'runlane.toml'}, {folder / 'pyproject.toml'}\n")
    assert "# token: ********" in done.out
    assert any(line.split("#")[-1].strip() == "RUNLANE_LOG_LEVEL" for line in done.out.splitlines())
    shown = tomllib.loads(done.out)
    assert shown["broker"]["window_sizes"] == {"a.b": 2}
    (folder / "runlane.toml").write_text(done.out)
    shown["broker"]["db"] = f"sqlite:///{folder}/runlane.db"  # in a file, it is relative to that
    assert tomllib.loads(runlane("config", "show").out) == shown


def test_nothing_told(runlane: Run) -> None:
    done = runlane("config", "show")
    assert done.out.startswith("# read: no file\n")
    assert "# token: not set" in done.out
    assert all(line.endswith("# default") for line in done.out.splitlines() if "=" in line)


def test_a_mistake_is_told_in_a_line(runlane: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNLANE_PORT", "x")
    done = runlane("config", "show")
    assert (done.code, done.out) == (2, "")
    assert done.complaint == "runlane: RUNLANE_PORT must be a whole number, not 'x'"
