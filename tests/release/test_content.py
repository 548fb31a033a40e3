"""What is in the wheel, what it says about itself, and that the source distribution makes the same one."""

from __future__ import annotations

import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import runlane

from .harness import ROOT, Built, files_of, metadata_of

INFO = f"runlane-{runlane.__version__}.dist-info"


def sources() -> Iterator[str]:
    """Yield the files that users get, as they are called in a wheel."""
    for root in (ROOT / "clients", ROOT / "broker"):
        for path in root.rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                yield path.relative_to(root).as_posix()


def test_all_of_the_packages_and_nothing_else_is_in_the_wheel(built: Built) -> None:
    files = {name for name in files_of(built.wheel) if not name.startswith(f"{INFO}/")}
    assert files == set(sources())


@pytest.mark.parametrize(
    "name",
    [
        "runlane/py.typed",
        "runlane_broker/py.typed",
        "runlane/protocol/PROTOCOL.md",
        "runlane_broker/storage/migrations/env.py",
        "runlane_broker/storage/migrations/versions/0001_spine.py",
        f"{INFO}/licenses/LICENSE",
    ],
)
def test_what_is_no_module_is_in_the_wheel_too(built: Built, name: str) -> None:
    assert name in files_of(built.wheel)


def test_the_wheel_is_for_every_system(built: Built) -> None:
    assert built.wheel.name == f"runlane-{runlane.__version__}-py3-none-any.whl"


def test_metadata(built: Built) -> None:
    metadata = metadata_of(built.wheel)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (metadata["Name"], metadata["Version"]) == ("runlane", runlane.__version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) == {"broker", "postgres"}
    required = metadata.get_all("Requires-Dist", [])
    assert {line for line in required if "extra ==" not in line} == set(project["dependencies"])
    of_broker = [line for line in required if line.endswith("extra == 'broker'")]
    assert len(of_broker) == len(project["optional-dependencies"]["broker"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    versions = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)}
    assert versions <= set(metadata.get_all("Classifier", []))


def test_the_command_and_the_plugin_are_declared(built: Built) -> None:
    declared = files_of(built.wheel)[f"{INFO}/entry_points.txt"].decode()
    assert "runlane = runlane.cli:main" in declared
    assert "runlane = _runlane_pytestplugin" in declared


def test_the_source_distribution_makes_the_same_wheel(built: Built) -> None:
    assert files_of(built.wheel_of_sdist) == files_of(built.wheel)


def test_what_a_packager_needs_is_in_the_source_distribution(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    wanted = {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "docs/guide.md",
        "tests/release/harness.py",
    }
    assert wanted <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/"))]
