"""The page about states, made of the tables, so that it cannot say anything else than they do.

python -m runlane_broker.orchestration.diagram > docs/states.md
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from runlane.protocol.states import FINAL, StateType

from .policies import POLICIES, TASK_CONSEQUENCES
from .rules import ANY, Policy, Rule
from .states import TRANSITIONS

_HEAD: Final = """\
<!-- Made by `python -m runlane_broker.orchestration.diagram > docs/states.md`: change the tables instead. -->

# The states of a run

## What the broker does by itself

Between its submission and its end, a task run is moved by leases and by the reports of its workers: SCHEDULED
while it waits in its queue, PENDING once it is leased, RUNNING when its worker has started it. What the drawing
doesn't show doesn't happen, and a refused transition changes nothing.
"""

_POLICIES: Final = """\
## What may be asked for over HTTP

Whoever sets a state over HTTP *proposes* it. The rules of a policy are asked in turn, if they are about the state
that the run is in and the one that was proposed; the first that objects decides.

| answer | what is written |
|---|---|
| ACCEPT | the proposed state, perhaps under another name |
| REJECT | another state in its place, or none |
| WAIT | nothing; it may be asked for again after some seconds |
| ABORT | nothing; it should not be asked for again |

| policy | is asked about |
|---|---|
| CoreTaskPolicy | task runs of a flow run |
| BackgroundTaskPolicy | task runs without one, and those that are `deferred`, even with `force` |
| MinimalTaskPolicy | task runs with `force` |
| ReportedTaskPolicy | states that Prefect 3's clients report, as events, of task runs that they execute |
| CoreFlowPolicy, MinimalFlowPolicy | flow runs without and with `force` |
| MarkLateRunsPolicy | runs of both kinds, by the service that marks late ones |
| RequeueParkedPolicy | task runs, where somebody asks to have them queued again (`runlane requeue`) |
"""

_CONSEQUENCES: Final = """\
### What else follows

Of a state that the task policies let through:
"""


def page() -> str:
    """Return the page as Markdown."""
    lines = [_HEAD, *_drawing(), "", _POLICIES, *_tables(), _CONSEQUENCES, *_consequences()]
    return "\n".join(lines) + "\n"


# --- The drawing --------------------------------------------------------------------------------------------


def _drawing() -> Iterator[str]:
    """Yield a Mermaid diagram of the table. A state that leads to every end has one arrow for all of them."""
    yield from ("```mermaid", "stateDiagram-v2", "    state ended {")
    yield from (f"        {state}" for state in StateType if state in FINAL)
    yield "    }"
    for state, following in TRANSITIONS.items():
        ends = following >= FINAL
        yield from (_arrow(state, other) for other in _sorted(following - FINAL if ends else following))
        if ends:
            yield _arrow(state, "ended")
    yield from ("    ended --> [*]", "```")


def _arrow(state: StateType | None, following: str) -> str:
    return f"    {state or '[*]'} --> {following}"


# --- The policies -------------------------------------------------------------------------------------------


def _tables() -> Iterator[str]:
    for policy in POLICIES:
        yield from (f"### {policy.name}", "")
        yield from _table(policy)


def _table(policy: Policy) -> Iterator[str]:
    yield from ("| | rule | leaving | entering | |", "|---|---|---|---|---|")
    for number, rule in enumerate(policy.rules, 1):
        yield f"| {number} | {rule.name} | {_set(rule.leaving)} | {_set(rule.entering)} | {_says(rule)} |"
    yield ""


def _says(rule: Rule) -> str:
    return rule.summary.replace("->", "→")


def _set(states: Iterable[StateType | None]) -> str:
    """Return a set of states in the fewest words."""
    types = {state for state in states if state is not None}
    missing = set(ANY) - types
    if not missing:
        return "any"
    if types == set(FINAL):
        return "any that is final"
    if len(missing) == 1:
        return f"any but {missing.pop()}"
    return ", ".join(_sorted(types))


def _sorted(states: Iterable[StateType]) -> list[StateType]:
    return sorted(states, key=list(StateType).index)


def _consequences() -> Iterator[str]:
    for consequence in TASK_CONSEQUENCES:
        summary, _, _ = (inspect.getdoc(consequence) or "").partition("\n")
        yield f"- {summary}"


if __name__ == "__main__":
    sys.stdout.write(page())
