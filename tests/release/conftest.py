"""What is built, and environments with it in them: for the whole session, all of its processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .harness import Built, Environment, once


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of the session know."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "release"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def built(shared: Path) -> Built:
    return Built(once(shared / "dist", Built.build))


@pytest.fixture(scope="session")
def client(shared: Path, built: Built) -> Environment:
    """An environment with `runlane` alone: what workers and producers need."""
    requirement = f"runlane @ {built.wheel.as_uri()}"
    return Environment(once(shared / "client", lambda folder: Environment.build(folder, requirement)))


@pytest.fixture(scope="session")
def full(shared: Path, built: Built) -> Environment:
    """An environment with `runlane[broker]`."""
    requirement = f"runlane[broker] @ {built.wheel.as_uri()}"
    return Environment(once(shared / "full", lambda folder: Environment.build(folder, requirement)))
