"""`runlane status`, of a broker and of what is none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import runlane as package
from runlane.commands import status

from .harness import Broker, Run

Answer = tuple[int, bytes, dict[str, str]]


@contextmanager
def server(answer: Callable[[str], Answer]) -> Iterator[tuple[str, list[Any]]]:
    """An HTTP server that says what a test wants; gives its URL and the requests' headers."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, dict(self.headers)))
            code, body, headers = answer(self.path)
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", seen
        http.shutdown()
        thread.join()


def broker_says(ready: Callable[[], bool]) -> Callable[[str], Answer]:
    def answer(path: str) -> Answer:
        if path == "/api/version":
            return 200, b'"9.9.9"', {}
        return (200, b'{"status":"ready"}', {}) if ready() else (503, b'{"status":"not ready"}', {})

    return answer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_PAUSE", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_ready(runlane: Run, broker: Broker) -> None:
    done = runlane("status", *broker.flags)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"runlane {package.__version__} at {broker.url}: ready\n"


def test_ready_as_json(runlane: Run, broker: Broker) -> None:
    done = runlane("status", "--json", "--wait", *broker.flags)
    assert done.code == 0
    assert json.loads(done.out) == {
        "url": broker.url, "reachable": True, "ready": True, "version": package.__version__, "problem": None,
        "unserved": {},
    }  # fmt: skip


def test_keys_without_a_worker_are_listed(runlane: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runlane_broker.core.unserved.PATIENCE_SECONDS", 0.0)
    assert runlane("submit", "cli.away", *broker.flags).code == 0
    assert runlane("submit", "cli.add", "--args", '{"a": 1}', "--wait", *broker.flags).code == 0
    done = runlane("status", *broker.flags)
    assert done.out.splitlines()[1:] == ["waiting without a worker: cli.away (1)"]
    assert json.loads(runlane("status", "--json", *broker.flags).out)["unserved"] == {"cli.away": 1}


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (None, "wants a token, none is set: --token-file, RUNLANE_TOKEN_FILE"),
        ("wrong", "wants a token, not the one that is set"),
    ],
)
def test_a_token_that_is_missing_or_wrong_is_told_of(
    runlane: Run, broker: Broker, folder: Path, token: str | None, says: str
) -> None:
    flags = ["--url", broker.url]
    if token is not None:
        (folder / "wrong").write_text(token * 8)
        flags += ["--token-file", "wrong"]
    done = runlane("status", *flags)
    assert (done.code, done.out) == (0, f"runlane {package.__version__} at {broker.url}: ready\n")
    assert done.complaint == f"runlane: {broker.url}: {says}"


def test_not_ready(runlane: Run) -> None:
    with server(broker_says(lambda: False)) as (url, _):
        done = runlane("status", "--url", url)
        assert (done.code, done.out) == (1, "")
        assert done.complaint == f"runlane: {url}: not ready: it starts, or stops"
        shown = json.loads(runlane("status", "--url", url, "--json").out)
        assert (shown["reachable"], shown["ready"], shown["version"]) == (True, False, "9.9.9")


def test_wait_until_ready(runlane: Run) -> None:
    looks = iter([False, False, True])
    with server(broker_says(lambda: next(looks))) as (url, seen):
        done = runlane("status", "--wait", "--timeout", "20", "--url", url)
    assert (done.code, done.out) == (0, f"runlane 9.9.9 at {url}: ready\n")
    assert len(seen) == 7


def test_wait_in_vain(runlane: Run) -> None:
    done = runlane("status", "--wait", "--timeout", "0.05", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.code == 1
    assert done.complaint.endswith("cannot be reached: Connection refused")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_nobody_there(runlane: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = runlane("status", "--url", url)
    assert (done.code, done.complaint) == (1, f"runlane: {url}: cannot be reached: Connection refused")
    done = runlane("status", "--url", url, "--json")
    assert (done.code, done.err) == (1, "")
    assert json.loads(done.out) == {
        "url": url, "reachable": False, "ready": False, "version": None,
        "problem": "cannot be reached: Connection refused", "unserved": None,
    }  # fmt: skip


def test_nobody_of_that_name(runlane: Run) -> None:
    done = runlane("status", "--url", "http://no-such-host.invalid")
    assert done.code == 1
    assert "http://no-such-host.invalid: cannot be reached: " in done.complaint


def test_somebody_who_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = status.ClientSection(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        found = status.probe(client, 0.05)
    assert (found.reachable, found.problem) == (False, "cannot be reached: no answer in time")


@pytest.mark.parametrize("bad", [(404, b"not found"), (200, b"<html>"), (200, b"{}"), (200, b"\xff"), (502, b"")])
def test_somebody_else(runlane: Run, bad: tuple[int, bytes]) -> None:
    with server(lambda _: (*bad, {})) as (url, _):
        done = runlane("status", "--url", url)
    assert done.code == 1
    assert f"{url}: is no Runlane broker, or not reached: /api/version answers {bad[0]}" in done.complaint


def test_somebody_who_speaks_no_http(runlane: Run) -> None:
    def babble(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(b"\x1b[31mhello\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=babble, args=(listener,))
        thread.start()
        done = runlane("status", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert done.code == 1
    assert "\x1b" not in done.complaint


def test_the_token_goes_to_the_broker_and_not_where_that_leads(runlane: Run, broker: Broker) -> None:
    with (
        server(broker_says(lambda: True)) as (elsewhere, seen_there),
        server(lambda path: (302, b"", {"Location": elsewhere + path})) as (url, seen),
    ):
        done = runlane("status", "--url", url, "--token-file", str(broker.token_file))
    assert done.code == 0
    assert all("Authorization" in headers for _, headers in seen)
    assert len(seen_there) == 3
    assert not any("Authorization" in headers for _, headers in seen_there)
