"""`runlane submit`, to a real broker with a real worker."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from runlane import Client, Settings, task
from runlane.commands import submit
from runlane.protocol.ids import is_id

from .harness import TOKEN, Broker, Done, Run, add
from .test_status import free_port


@pytest.fixture
def to(broker: Broker, runlane: Run) -> Run:
    """Submit to the broker."""

    def send(*argv: str) -> Done:
        patience = ("--timeout", "10") if "--wait" in argv and "--timeout" not in argv else ()
        return runlane("submit", *argv, *patience, *broker.flags)

    return send


def test_the_id_is_printed(to: Run) -> None:
    done = to("cli.add", "--args", '{"a": 2, "b": 3}')
    assert (done.code, done.err) == (0, "")
    assert is_id(done.out.strip())


def test_the_result_is_printed(to: Run) -> None:
    assert to("cli.add", "--args", '{"a": 2, "b": 3}', "--wait") == Done(0, "5\n", "")
    assert to("cli.nothing", "--wait", "--timeout", "20") == Done(0, "null\n", "")


def test_arguments_travel_as_they_are(to: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = 2**70
    (folder / "args.json").write_text(f'{{\n  "a": {big}\n}}\n')
    assert to("cli.add", "--args", "@args.json", "--wait").out == f"{big + 1}\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"a": 1}')))
    assert to("cli.add", "--args", "-", "--wait").out == "2\n"


@pytest.mark.parametrize("value", [2, 2**70, 1.5, 1e16, 1e-7, "é\u2028\n", None, [{"x": True}]])
def test_arguments_have_the_bytes_of_a_programs(value: object, tmp_path: Path) -> None:
    @task(key="some")
    def some(a: object, b: int) -> None: ...

    file = tmp_path / "args.json"
    file.write_text(json.dumps({"a": value, "b": 3}, indent=2))
    expected = bytes(some.bind(value, 3).run.parameters)
    assert bytes(submit._parameters(f"@{file}")) == expected  # pyright: ignore[reportPrivateUsage]


def test_a_program_and_the_command_share_an_idempotency_key(to: Run, broker: Broker) -> None:
    with Client(Settings(url=broker.url, token=TOKEN)):
        future = add.options(idempotency_key="shared").delay(2, b=3)
    done = to("cli.add", "--args", '{ "a": 2,  "b": 3 }', "--idempotency-key", "shared", "--json")
    assert json.loads(done.out) == {"id": future.id, "created": False}


def test_json(to: Run) -> None:
    done = to("cli.add", "--args", '{"a": 2}', "--json", "--idempotency-key", "once")
    first = json.loads(done.out)
    assert first == {"id": first["id"], "created": True}
    again = json.loads(to("cli.add", "--args", '{"a": 2}', "--json", "--idempotency-key", "once", "--wait").out)
    state = {"type": "COMPLETED", "name": "Completed", "message": None}
    assert again == {"id": first["id"], "created": False, "state": state, "result": 3, "error": None}


def test_a_failure_is_told_and_is_one(to: Run) -> None:
    done = to("cli.fail", "--args", '{"text": "no\\u001b[31m\\ngood"}', "--wait")
    assert (done.code, done.out) == (1, "")
    assert done.complaint.endswith("is Failed: ValueError: no [31m good")
    done = to("cli.fail", "--args", '{"text": "no"}', "--wait", "--json")
    assert done.code == 1
    shown = json.loads(done.out)
    assert (shown["state"]["type"], shown["error"]["type"], shown["error"]["message"]) == (
        "FAILED",
        "ValueError",
        "no",
    )
    assert "Traceback" in shown["error"]["traceback"]
    assert "ValueError: no" in done.complaint


def test_a_delay_is_kept_and_patience_ends(to: Run) -> None:
    done = to("cli.add", "--args", '{"a": 1}', "--delay", "1h", "--wait", "--timeout", "0.2")
    assert (done.code, done.out) == (1, "")
    assert done.complaint.endswith("has not ended within 0.2 s; it goes on")


def test_patience_that_ends_for_want_of_a_worker(to: Run) -> None:
    done = to("cli.misspelt", "--wait", "--timeout", "0.2")
    assert (done.code, done.out) == (1, "")
    assert done.complaint.endswith("0.2 s; it goes on, but no worker serves cli.misspelt now")


@pytest.mark.parametrize("wait", [(), ("--wait",)])
def test_a_timeout_holds_for_all_of_it(runlane: Run, wait: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = runlane("submit", "cli.add", *wait, "--timeout", "0.1", "--url", url)
    assert (done.code, done.out) == (1, "")
    assert done.complaint == f"runlane: {url}: cannot be reached: no answer in time"


def test_a_conflict_is_refused(to: Run) -> None:
    to("cli.add", "--args", '{"a": 1}', "--idempotency-key", "taken")
    done = to("cli.add", "--args", '{"a": 2}', "--idempotency-key", "taken")
    assert (done.code, done.out) == (1, "")
    assert done.complaint.startswith("runlane: idempotency_conflict: ")


def test_a_wrong_token_is_refused(runlane: Run, broker: Broker, folder: Path) -> None:
    (folder / "wrong").write_text("not-the-token-of-this-broker")
    done = runlane("submit", "cli.add", "--url", broker.url, "--token-file", "wrong")
    assert (done.code, done.out) == (1, "")
    assert "the broker ended the connection for good" in done.complaint
    assert "authentication failed: it wants another token than the one that is set" in done.complaint
    done = runlane("submit", "cli.add", "--url", broker.url)
    assert "it wants a token, and none is set (RUNLANE_TOKEN_FILE, --token-file)" in done.complaint


def test_no_broker(runlane: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "CONFIRM_SECONDS", 0.1)
    url = f"http://127.0.0.1:{free_port()}"
    done = runlane("submit", "cli.add", "--url", url)
    assert (done.code, done.out) == (1, "")
    assert done.complaint == f"runlane: {url}: cannot be reached: Connection refused"


def test_the_broker_is_found_by_the_environment(
    runlane: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLANE_URL", broker.url)
    monkeypatch.setenv("RUNLANE_TOKEN_FILE", str(broker.token_file))
    assert runlane("submit", "cli.add", "--args", '{"a": 1}', "--wait", "--timeout", "10").out == "2\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_interrupted_while_waiting(to: Run) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    done = to("cli.add", "--args", '{"a": 1}', "--delay", "1h", "--wait")
    assert done.code == 130
    assert done.complaint.endswith("goes on")
