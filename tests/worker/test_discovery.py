"""Which tasks `runlane worker MODULE` serves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runlane.worker import find_tasks

NET = """
import functools
from runlane import task
from {package}.tasks import add, mul as times

@task
def flaky(): ...

partly = task(key="partly")(functools.partial(flaky.function))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a package: `tasks` has tasks, `net` has and imports some, the others import some."""
    name = f"shop_{tmp_path.name}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "tasks.py").write_text("from runlane import task\n@task\ndef add(): ...\n@task\ndef mul(): ...\n")
    (folder / "net.py").write_text(NET.format(package=name))
    (folder / "all.py").write_text(f"from {name}.tasks import add\nfrom {name}.net import flaky\n")
    (folder / "__init__.py").write_text(f"from {name}.net import flaky\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return name


def test_a_file_of_a_package_has_other_keys(package: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "runlane.worker"):
        found = find_tasks(f"{package}/net.py")
        assert f"did you mean {package}.net?" in caplog.text
        caplog.clear()
        find_tasks(f"{package}.net")
    assert found.tasks["flaky"].key == "net.flaky"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("target", "served", "left_out"),
    [
        (".tasks", {"add", "mul"}, set()),
        (".net", {"flaky", "partly"}, {"add", "times"}),
        ("/net.py", {"flaky", "partly"}, {"add", "times"}),
        (".net:times,flaky", {"times", "flaky"}, set()),
        (".all", {"add", "flaky"}, set()),
        ("", {"flaky"}, set()),
    ],
)
def test_what_is_defined_is_served(package: str, target: str, served: set[str], left_out: set[str]) -> None:
    found = find_tasks(package + target)
    assert (set(found.tasks), set(found.left_out)) == (served, left_out)
