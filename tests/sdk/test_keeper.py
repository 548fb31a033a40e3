"""What is said of a broker that is away."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runlane.transport import keeper
from runlane.transport.dial import DialFailed

from .fake_broker import run


class Listener:
    """Somebody who gives up after so many tries."""

    resume_seconds = None
    holds_runs = False

    def __init__(self, tries: int) -> None:
        self.tries = tries
        self.reasons: list[str] = []

    @property
    def ended(self) -> bool:
        return len(self.reasons) == self.tries

    def unreachable(self, reason: str) -> None:
        self.reasons.append(reason)


def test_an_outage_is_told_of_at_first_and_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0

    async def dial(_: float) -> Any:
        nonlocal now
        now += 8
        raise DialFailed("no route")

    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(keeper, "retry_delay", lambda *_, **__: 0.0)
    listener = Listener(10)
    with caplog.at_level(logging.WARNING, "runlane.transport"):
        run(keeper.keep_connected(dial, cast("Any", listener), "ws://b"))
    assert listener.reasons == ["no route"] * 10
    said = "cannot reach the broker at ws://b{}: no route; trying again"
    assert caplog.messages == [said.format(since) for since in ("", " for 40 s", " for 72 s")]
