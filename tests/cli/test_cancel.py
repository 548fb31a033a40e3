"""`runlane cancel` and `runlane requeue`, of a broker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runlane.config import ClientSection
from runlane.errors import ArgumentError
from runlane.protocol.ids import uuid7
from runlane.rest import RequestRefused, ask
from runlane.runs import TaskRuns

from .harness import TOKEN, Broker, Run


def section(broker: Broker) -> ClientSection:
    return ClientSection(url=broker.url, token=TOKEN)


def make(broker: Broker, key: str, **fields: Any) -> str:
    """Create a run that no worker serves."""
    run = {"task_key": key, "state": {"type": "SCHEDULED"}, **fields}
    return ask(section(broker), "POST", "/task_runs/", run)["id"]


def park(broker: Broker, run_id: str) -> str:
    state = {"state": {"type": "CRASHED", "name": "Parked"}, "force": True}
    ask(section(broker), "POST", f"/task_runs/{run_id}/set_state", state)
    return run_id


def name_of(broker: Broker, run_id: str) -> str:
    return ask(section(broker), "GET", f"/task_runs/{run_id}")["state"]["name"]


def test_runs_are_cancelled_by_id(runlane: Run, broker: Broker) -> None:
    one, two = make(broker, "cancel.ids"), make(broker, "cancel.ids")
    done = runlane("cancel", one, two, *broker.flags)
    assert (done.code, done.out.splitlines(), done.err) == (0, [f"{one} CANCELLED", f"{two} CANCELLED"], "")
    done = runlane("cancel", one.upper(), "--json", *broker.flags)
    assert json.loads(done.out) == {one.upper(): {"type": "CANCELLED", "name": "Cancelled"}}


def test_flow_runs_are_cancelled_and_queued_again_by_id_too(runlane: Run, broker: Broker) -> None:
    flow = ask(section(broker), "POST", "/flows/", {"name": "cancelled"})["id"]
    run = {"flow_id": flow, "state": {"type": "SCHEDULED"}}
    one, two = (ask(section(broker), "POST", "/flow_runs/", run)["id"] for _ in range(2))
    done = runlane("cancel", one, make(broker, "cancel.ids"), *broker.flags)
    assert (done.code, done.out.splitlines()[0]) == (0, f"{one} CANCELLED")
    parked = {"state": {"type": "CRASHED", "name": "Parked"}, "force": True}
    ask(section(broker), "POST", f"/flow_runs/{two}/set_state", parked)
    assert runlane("requeue", two, *broker.flags).out == f"{two} Requeued\n"
    done = runlane("requeue", two, *broker.flags)
    assert (done.code, "only one that is Parked" in done.complaint) == (1, True)


def test_what_is_not_there_is_said_and_the_others_are_cancelled(runlane: Run, broker: Broker) -> None:
    none, one = uuid7(), make(broker, "cancel.ids")
    done = runlane("cancel", none, one, *broker.flags)
    assert (done.code, done.out) == (1, f"{one} CANCELLED\n")
    assert done.complaint == f"runlane: {none}: Task run not found"


def test_runs_are_cancelled_by_what_they_have_in_common(runlane: Run, broker: Broker) -> None:
    mine = [make(broker, "cancel.key", tags=["a", f"{n}"]) for n in range(2)]
    other, parked = make(broker, "cancel.other"), park(broker, make(broker, "cancel.key"))
    done = runlane("cancel", "--key", "cancel.key", "--tag", "a", "--tag", "1", *broker.flags)
    assert (done.code, done.out) == (0, "1 cancelled, 0 being stopped by their workers\n")
    done = runlane(
        "cancel", "--key", "cancel.key", "--state", "scheduled", "--state", "Late", "--json", *broker.flags
    )
    assert json.loads(done.out) == {"cancelled": 1, "cancelling": 0}
    assert [name_of(broker, run) for run in (*mine, other, parked)] == ["Cancelled"] * 2 + ["Scheduled", "Parked"]
    done = runlane("cancel", "--all", *broker.flags)
    assert done.code == 0
    assert name_of(broker, other) == "Cancelled"


def test_parked_runs_are_queued_again(runlane: Run, broker: Broker) -> None:
    runs = [park(broker, make(broker, f"requeue.{n}")) for n in (1, 2, 2, 3)]
    done = runlane("requeue", runs[0], *broker.flags)
    assert (done.code, done.out) == (0, f"{runs[0]} Requeued\n")
    done = runlane("requeue", runs[0], *broker.flags)
    assert done.code == 1
    assert done.complaint.endswith("only one that is Parked is queued again.")
    done = runlane("requeue", "--parked", "--key", "requeue.2", *broker.flags)
    assert (done.code, done.out) == (0, "2 queued again\n")
    assert name_of(broker, runs[3]) == "Parked"
    assert runlane("requeue", "--parked", *broker.flags).code == 0
    assert [name_of(broker, run) for run in runs] == ["Requeued"] * 4


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("cancel",), "say which runs"),
        (("cancel", uuid7(), "--all"), "not both"),
        (("cancel", "nonsense"), "is no id of a run"),
        (("cancel", "--state", "SCHEDULD"), "'SCHEDULD' is no state; known are SCHEDULED, PENDING, "),
        (("requeue",), "say which runs"),
        (("requeue", "--key", "k"), "--key and --tag need --parked"),
    ],
)
def test_used_wrongly(runlane: Run, broker: Broker, words: tuple[str, ...], error: str) -> None:
    done = runlane(*words, *broker.flags)
    assert done.code == 2
    assert error in done.complaint


def test_who_is_not_there_is_said(runlane: Run) -> None:
    done = runlane("cancel", "--all", "--url", "http://127.0.0.1:9")
    assert done.code == 1
    assert "cannot be reached" in done.complaint


def test_the_same_from_a_program(broker: Broker) -> None:
    runs = TaskRuns(section(broker))
    with pytest.raises(ArgumentError, match="say which runs"):
        runs.cancel_all()
    run_id = make(broker, "cancel.program")
    with pytest.raises(RequestRefused) as refused:
        runs.requeue(run_id)
    assert refused.value.status == 409
    assert runs.cancel_all(keys=["cancel.program"]) == {"cancelled": 1, "cancelling": 0}
    assert runs.cancel(run_id)["type"] == "CANCELLED"
