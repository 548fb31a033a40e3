"""`runlane serve` as a process, told by a file; and what it tells of a run."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from runlane.protocol.ids import uuid7

from .harness import TOKEN, Broker, Run


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGTERM")
def test_a_broker_that_a_file_tells_everything(runlane: Run, folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "token").write_text(TOKEN)
    (folder / "runlane.toml").write_text(
        '[broker]\nport = 0\ndb = "sqlite:///here.db"\ntoken_file = "token"\nlog_format = "json"\n'
        '[client]\ntoken_file = "token"\n[broker.timers]\ndrain = "0s"\n'
    )
    command = (sys.executable, "-m", "runlane", "serve")
    with subprocess.Popen(command, cwd=inner, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        url = re.search(r"listening on (http://\S+?),", line["message"])
        assert url is not None
        assert runlane("status", "--wait", "--timeout", "20", "--url", url[1]).code == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        rest = [json.loads(line) for line in process.stderr]
        assert [(line["level"], line["message"]) for line in rest] == [("info", "draining")]
    assert (folder / "here.db").is_file()
    assert list(inner.iterdir()) == []


def get(broker: Broker, path: str, token: str | None = TOKEN) -> tuple[int, Any]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urlopen(Request(f"{broker.url}{path}", headers=headers)) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


def test_the_states_of_a_run(runlane: Run, broker: Broker) -> None:
    how = ("--wait", "--timeout", "10", "--json", *broker.flags)
    done = json.loads(runlane("submit", "cli.add", "--args", '{"a": 1}', *how).out)
    code, states = get(broker, f"/api/task_run_states/?task_run_id={done['id'].upper()}")
    assert code == 200
    assert [state["type"] for state in states] in (
        ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"],
        ["PENDING", "RUNNING", "COMPLETED"],  # a slot was free
    )
    assert [state["timestamp"] for state in states] == sorted(state["timestamp"] for state in states)
    assert {state["state_details"]["task_run_id"] for state in states} == {done["id"]}


def test_a_run_that_there_is_not_has_no_states(broker: Broker) -> None:
    assert get(broker, f"/api/task_run_states/?task_run_id={uuid7()}") == (200, [])


@pytest.mark.parametrize("query", ["", "?task_run_id=", "?task_run_id=x", "?id=1"])
def test_the_states_of_nothing(broker: Broker, query: str) -> None:
    code, body = get(broker, f"/api/task_run_states/{query}")
    assert code == 422
    assert body["exception_detail"][0]["loc"] == ["query", "task_run_id"]


def test_states_need_the_token(broker: Broker) -> None:
    assert get(broker, f"/api/task_run_states/?task_run_id={uuid7()}", None)[0] == 401
