"""What is answered when something goes wrong here, and not at the client."""

from __future__ import annotations

import httpx
import pytest

from runlane_broker.core.workers import Workers
from runlane_broker.errors import Overloaded, StoreUnavailable
from tests.edges.harness import Host

PATH = "/api/task_workers/filter"


def failing(error: Exception) -> object:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(StoreUnavailable("locked"), "1"), (Overloaded("full", 7.4), "7"), (Overloaded("", 0.1), "1")],
)
def test_not_now(broker: Host, error: Exception, seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "serving", failing(error))
    answer = broker.http.post(PATH)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == seconds
    assert answer.json() == {"detail": "Service Unavailable", "exception_message": "Service Unavailable"}


def test_a_mistake_of_ours_is_logged_and_not_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "serving", failing(RuntimeError("a secret")))
    answer = host.http.post(PATH)
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Internal Server Error", "exception_message": "Internal Server Error"}
    with httpx.Client(base_url=host.url) as other:  # the server closes the connection that saw the mistake
        assert other.get("/livez").status_code == 200  # by now it stands in the log
    faults = host.log.faults()
    host.log.records.clear()
    assert any("a secret" in line for line in faults), faults
