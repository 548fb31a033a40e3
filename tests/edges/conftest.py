"""Fixtures of the edge tests: brokers that must be none the worse for anything that a peer does."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from .harness import TOKEN, Host


@pytest.fixture(scope="session", autouse=True)
def _cheap_collections() -> Iterator[None]:
    """Leave what is there already out of the collections that follow each case."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def open_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A broker without a token."""
    host = Host(tmp_path_factory.mktemp("open"))
    host.start()
    yield host
    host.stop()


@pytest.fixture(scope="session")
def guarded_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A broker with a token."""
    host = Host(tmp_path_factory.mktemp("guarded"), TOKEN)
    host.start()
    yield host
    host.stop()


@pytest.fixture
def broker(open_host: Host) -> Iterator[Host]:
    """A broker without a token, whose health is checked after the case."""
    open_host.canary.waits()
    yield open_host
    open_host.check()


@pytest.fixture
def guarded(guarded_host: Host) -> Iterator[Host]:
    """A broker with a token, whose health is checked after the case."""
    guarded_host.canary.waits()
    yield guarded_host
    guarded_host.check()
