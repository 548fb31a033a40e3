"""Decide on a state that somebody asks for over HTTP."""

from __future__ import annotations

from msgspec.structs import replace

from runlane.protocol.states import StateType

from ..clock import Micros
from .bookkeeping import advance
from .decisions import Accept, Decision, Proposed, Reject, Write
from .details import StateDetails
from .facts import Facts
from .rules import Policy, Replace, Transition
from .runs import Run, RunKind


def decide(
    run: Run, proposed: Proposed, facts: Facts, policy: Policy, now: Micros, stamp: Micros | None = None
) -> Decision:
    """Ask the policy's rules in turn what becomes of the proposed state.

    `now` is the time of day. `stamp` is what the state is dated with where that is not the same: states written at
    one time are told apart by it.

    Which rules have a say depends on what was asked for: one that puts another state in its place doesn't call in
    the rules about that one.
    """
    left = run.state.type if run.state is not None else None
    asked = _completed(proposed, now)
    transition = Transition(run, asked, asked.type, facts, now)
    for rule in policy.rules:
        if not rule.covers(left, asked.type):
            continue
        verdict = rule.judge(transition)
        if isinstance(verdict, Replace):
            state = _completed(verdict.state, now)
            instead = Transition(run, state, asked.type, facts, now, verdict.effects)
            return Reject(verdict.reason, _write(instead, policy, stamp))
        if not isinstance(verdict, Transition):
            return verdict
        transition = verdict
    return Accept(_write(transition, policy, stamp))


def _completed(state: Proposed, now: Micros) -> Proposed:
    """Return the state with its name and, where it is SCHEDULED, a time."""
    if state.type is StateType.SCHEDULED and state.details.scheduled_time is None:
        state = replace(state, details=replace(state.details, scheduled_time=now))
    return replace(state, name=state.label)


def _write(transition: Transition, policy: Policy, stamp: Micros | None) -> Write:
    run = transition.run
    timestamp = transition.now if stamp is None else stamp
    timestamp = timestamp if run.state is None else max(timestamp, run.state.timestamp + 1)
    state = replace(transition.proposed, details=_with_ids(run, transition.proposed))
    books = advance(run.books, run.state, state, timestamp)
    if transition.intended is StateType.FAILED and run.state is not None and run.state.type is StateType.RUNNING:
        books = replace(books, failures=books.failures + 1)
    consequences = (effect for consequence in policy.consequences for effect in consequence(transition))
    return Write(state, timestamp, books, (*transition.effects, *consequences))


def _with_ids(run: Run, state: Proposed) -> StateDetails:
    if run.kind is RunKind.FLOW:
        return replace(state.details, flow_run_id=run.id)
    return replace(state.details, flow_run_id=run.flow_run_id, task_run_id=run.id)
