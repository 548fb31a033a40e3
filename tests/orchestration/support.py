"""Runs for the rules to judge."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from runlane.protocol.states import StateType, default_name
from runlane_broker.orchestration.decide import decide
from runlane_broker.orchestration.decisions import (
    Abort,
    Accept,
    Decision,
    Proposed,
    Reject,
    Wait,
    Write,
    holds_result,
)
from runlane_broker.orchestration.facts import EnclosingFlow, Facts
from runlane_broker.orchestration.policies import choose_policy
from runlane_broker.orchestration.rules import Policy
from runlane_broker.orchestration.runs import Bookkeeping, CurrentState, Run, RunKind

S = StateType
SECOND = 1_000_000
NOW = 1_000_000 * SECOND
DATA = b'{"type":"reference","storage_key":"k"}'
NO_FACTS = Facts()
RUNNING_FLOW = EnclosingFlow("flow-run", S.RUNNING, run_count=1)


def run_in(
    state: StateType | None,
    *,
    name: str | None = None,
    kind: RunKind = RunKind.TASK,
    has_result: bool = False,
    run_count: int | None = None,
    **fields: object,
) -> Run:
    """Return a run in this state since a minute ago; it has run once, if the state says so."""
    current = None
    if state is not None:
        current = CurrentState(state, name or default_name(state), NOW - 60 * SECOND, has_result=has_result)
    started = state not in (None, S.SCHEDULED, S.PENDING)
    books = Bookkeeping(run_count=started if run_count is None else run_count, flow_run_run_count=started)
    return replace(Run("run", kind, current, books), **fields)


def status(decision: Decision) -> str:
    """Return what the Prefect server API calls it."""
    return {Accept: "ACCEPT", Reject: "REJECT", Wait: "WAIT", Abort: "ABORT"}[type(decision)]


def written(decision: Decision) -> Write | None:
    """Return what is to be written, if anything."""
    return decision.write if isinstance(decision, Accept | Reject) else None


def after(run: Run, write: Write) -> Run:
    """Return the run when this has been written."""
    state = write.state
    current = CurrentState(state.type, state.name, write.timestamp, state.details, holds_result(state.data))
    return replace(run, state=current, books=write.books)


@dataclass
class Story:
    """A run and what happens to it, one second after the other."""

    run: Run
    facts: Facts = NO_FACTS
    now: int = NOW
    history: list[Write] = field(default_factory=list)

    def propose(
        self, proposed: Proposed | StateType, *, force: bool = False, policy: Policy | None = None, name: str = ""
    ) -> Decision:
        """Propose a state; carry out what is decided."""
        self.now += SECOND
        asked = proposed if isinstance(proposed, Proposed) else Proposed(proposed, name)
        chosen = policy or choose_policy(self.run, asked, force=force)
        decision = decide(self.run, asked, self.facts, chosen, self.now)
        write = written(decision)
        if write is not None:
            self.run = after(self.run, write)
            self.history.append(write)
        return decision
