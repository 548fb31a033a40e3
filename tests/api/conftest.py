"""A broker for the tests of its HTTP API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.edges.harness import Host


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A broker without a token, shared: each test makes what it looks at."""
    host = Host(tmp_path_factory.mktemp("api"))
    host.start()
    yield host
    host.stop()


@pytest.fixture
def broker(host: Host) -> Iterator[Host]:
    """The broker, whose log must stay clean."""
    yield host
    assert host.log.faults() == []
    host.log.records.clear()
