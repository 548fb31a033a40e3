"""What becomes of every state that can be proposed in every state: the tables, drawn by hand.

The runs are plain: due in the past, no retries, no cache key, no limits; a flow run, if there is one, is RUNNING.
"""

from __future__ import annotations

import pytest

from runlane.protocol.states import StateType, default_name
from runlane_broker.orchestration.decide import decide
from runlane_broker.orchestration.decisions import Decision, Proposed
from runlane_broker.orchestration.details import StateDetails
from runlane_broker.orchestration.facts import Facts
from runlane_broker.orchestration.policies import choose_policy
from runlane_broker.orchestration.runs import RunKind

from .support import NOW, RUNNING_FLOW, S, run_in, status, written

#: What a cell means: the status, and the type and name of what is written ("" for what was proposed).
CELLS = {
    "+": ("ACCEPT", "", ""),
    "re": ("ACCEPT", "", "Rerunning"),
    "x": ("ABORT", None, None),
    "-": ("REJECT", None, None),
    "off": ("REJECT", "CANCELLED", "Cancelled"),
    "end": ("REJECT", "CANCELLED", "Cancelled"),  # not Prefect's: it would be CANCELLING, and stay so
}

CORE_TASK = """
                   SCHEDULED PENDING RUNNING PAUSED CANCELLING COMPLETED FAILED CRASHED CANCELLED
None               +         +       +       +      +          +         +      +       +
SCHEDULED          +         +       +       +      end        +         +      +       +
PENDING            +         +       +       +      end        +         +      +       +
RUNNING            +         +       re      +      +          +         +      +       +
PAUSED             +         +       re      +      end        +         +      +       +
CANCELLING         +         +       re      +      -          +         +      +       +
COMPLETED          +         +       +       x      x          +         +      x       -
COMPLETED/result   -         -       -       x      x          -         -      x       -
FAILED             +         +       +       x      x          +         +      x       +
CRASHED            +         +       +       x      x          +         +      x       +
CANCELLED          +         +       +       x      x          +         +      x       +
"""

BACKGROUND_TASK = """
                   SCHEDULED PENDING RUNNING PAUSED CANCELLING COMPLETED FAILED CRASHED CANCELLED
None               +         +       +       +      +          +         +      +       +
SCHEDULED          +         +       +       +      end        +         +      +       +
PENDING            +         x       +       +      end        +         +      +       +
RUNNING            +         x       re      +      +          +         +      +       +
PAUSED             +         +       re      +      end        +         +      +       +
CANCELLING         +         x       re      +      -          +         +      +       +
COMPLETED          +         +       +       x      x          +         +      x       -
COMPLETED/result   -         -       -       x      x          -         -      x       -
FAILED             +         +       +       x      x          +         +      x       +
CRASHED            +         +       +       x      x          +         +      x       +
CANCELLED          +         x       +       x      x          +         +      x       +
"""

MINIMAL_TASK = """
                   SCHEDULED PENDING RUNNING PAUSED CANCELLING COMPLETED FAILED CRASHED CANCELLED
None               +         +       +       +      +          +         +      +       +
SCHEDULED          +         +       +       +      end        +         +      +       +
PENDING            +         +       +       +      end        +         +      +       +
RUNNING            +         +       +       +      +          +         +      +       +
PAUSED             +         +       +       +      end        +         +      +       +
CANCELLING         +         +       +       +      +          +         +      +       +
COMPLETED          +         +       +       +      +          +         +      +       +
COMPLETED/result   +         +       +       +      +          +         +      +       +
FAILED             +         +       +       +      +          +         +      +       +
CRASHED            +         +       +       +      +          +         +      +       +
CANCELLED          +         +       +       +      +          +         +      +       +
"""

#: Without a deployment, which could start it again, and without infrastructure.
CORE_FLOW = """
                   SCHEDULED PENDING RUNNING PAUSED CANCELLING COMPLETED FAILED CRASHED CANCELLED
None               +         +       +       +      +          +         +      +       +
SCHEDULED          +         +       +       +      off        +         +      +       +
PENDING            +         x       +       +      +          +         +      +       +
RUNNING            +         x       +       +      +          +         +      +       +
PAUSED             +         +       +       +      +          +         +      +       +
CANCELLING         -         -       -       -      -          -         -      -       +
COMPLETED          x         +       +       x      x          +         +      x       +
COMPLETED/result   -         -       -       x      x          -         +      x       +
FAILED             x         +       +       x      x          +         +      x       +
CRASHED            x         +       +       x      x          +         +      x       +
CANCELLED          x         x       +       x      x          +         +      x       +
"""

MINIMAL_FLOW = """
                   SCHEDULED PENDING RUNNING PAUSED CANCELLING COMPLETED FAILED CRASHED CANCELLED
None               +         +       +       +      +          +         +      +       +
SCHEDULED          +         +       +       +      off        +         +      +       +
PENDING            +         +       +       +      +          +         +      +       +
RUNNING            +         +       +       +      +          +         +      +       +
PAUSED             +         +       +       +      +          +         +      +       +
CANCELLING         +         +       +       +      +          +         +      +       +
COMPLETED          +         +       +       +      +          +         +      +       +
COMPLETED/result   +         +       +       +      +          -         +      +       +
FAILED             +         +       +       +      +          +         +      +       +
CRASHED            +         +       +       +      +          +         +      +       +
CANCELLED          +         +       +       +      +          +         +      +       +
"""

#: kind, has a flow run, is deferred, force: the policy, and what becomes of the proposed states.
SITUATIONS = [
    ("task", True, False, False, "CoreTaskPolicy", CORE_TASK),
    ("task", True, False, True, "MinimalTaskPolicy", MINIMAL_TASK),
    ("task", True, True, False, "BackgroundTaskPolicy", BACKGROUND_TASK),
    ("task", True, True, True, "BackgroundTaskPolicy", BACKGROUND_TASK),
    ("task", False, False, False, "BackgroundTaskPolicy", BACKGROUND_TASK),
    ("task", False, False, True, "MinimalTaskPolicy", MINIMAL_TASK),
    ("task", False, True, False, "BackgroundTaskPolicy", BACKGROUND_TASK),
    ("task", False, True, True, "BackgroundTaskPolicy", BACKGROUND_TASK),
    ("flow", False, False, False, "CoreFlowPolicy", CORE_FLOW),
    ("flow", False, False, True, "MinimalFlowPolicy", MINIMAL_FLOW),
]


def rows(table: str) -> dict[str, dict[S, str]]:
    header, *lines = (line.split() for line in table.strip().splitlines())
    return {line[0]: dict(zip(map(S, header), line[1:], strict=True)) for line in lines}


@pytest.mark.parametrize("table", [CORE_TASK, BACKGROUND_TASK, MINIMAL_TASK, CORE_FLOW, MINIMAL_FLOW])
def test_every_pair_of_states_is_drawn(table: str) -> None:
    drawn = rows(table)
    assert drawn.keys() == {"None", "COMPLETED/result", *S}
    assert all(row.keys() == set(S) for row in drawn.values())


@pytest.mark.parametrize(
    ("kind", "in_flow", "deferred", "force", "policy", "left", "row"),
    [(*situation, left, row) for *situation, table in SITUATIONS for left, row in rows(table).items()],
)
def test_what_is_decided_is_what_the_tables_say(
    kind: str, in_flow: bool, deferred: bool, force: bool, policy: str, left: str, row: dict[S, str]
) -> None:
    name, _, result = left.partition("/")
    run = run_in(
        None if name == "None" else StateType(name),
        kind=RunKind[kind.upper()],
        has_result=bool(result),
        flow_run_id="flow-run" if in_flow else None,
    )
    facts = Facts(flow=RUNNING_FLOW if in_flow else None)
    for proposed, cell in row.items():
        asked = Proposed(proposed, message="why", details=StateDetails(deferred=deferred))
        chosen = choose_policy(run, asked, force=force)
        assert chosen.name == policy
        assert outcome(decide(run, asked, facts, chosen, NOW)) == meaning(cell, proposed), proposed


def meaning(cell: str, proposed: S) -> tuple[str, S | None, str | None, str | None]:
    """Return the status, and type, name and message of what is written, as a cell says it of a proposed state."""
    expected, type_, name = CELLS[cell]
    if type_ is None:
        return expected, None, None, None
    return expected, S(type_ or proposed), name or default_name(proposed), None if cell == "off" else "why"


def outcome(decision: Decision) -> tuple[str, S | None, str | None, str | None]:
    """Return the same of a decision."""
    write = written(decision)
    if write is None:
        return status(decision), None, None, None
    return status(decision), write.state.type, write.state.name, write.state.message
