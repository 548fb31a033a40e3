"""What every test of the client gets: no settings from outside, and no connection left over."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runlane.client.portal import portals


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("RUNLANE_")]:
        monkeypatch.delenv(name)
    yield
    portals.close()
