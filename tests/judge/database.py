"""Questions to the database alone: are the histories legal, and do they stay what they were?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from .events import RunRow, StateRow
from .evidence import FINAL, Evidence
from .violations import Kind, Violation

#: Written down here once more, and on purpose: whoever changes the broker's table shall not change the judge's.
_FOLLOWERS: Final = {
    "SCHEDULED": {"SCHEDULED", "PENDING", "CANCELLED"},
    "PENDING": {"RUNNING", "SCHEDULED", "CANCELLING"} | FINAL,
    "RUNNING": {"SCHEDULED", "CANCELLING"} | FINAL,
    "CANCELLING": {"CANCELLING", "COMPLETED", "CANCELLED", "CRASHED"},  # somebody may ask again
    "PAUSED": {"SCHEDULED", "CANCELLED"},
    "CRASHED": {"SCHEDULED"},
    "COMPLETED": set[str](),
    "FAILED": set[str](),
    "CANCELLED": set[str](),
}
#: The only names under which a run may be SCHEDULED after it was: it waits, and is called otherwise.
_RENAMED: Final = frozenset({"Late", "Scheduled"})


def histories(evidence: Evidence) -> Iterator[Violation]:
    """Each history begins, goes on and ends as it may, and attempts go 1, 2, 3, ..."""
    for run_id in evidence.states.keys() - evidence.runs.keys():
        yield Violation(Kind.ILLEGAL_HISTORY, run_id, "it has states and no row")
    for run in evidence.runs.values():
        states = evidence.states.get(run.id, [])
        yield from _beginning_and_end(run, states)
        for before, after in pairwise(states):
            yield from _step(before, after)
        attempts = [state.attempt for state in states if state.type == "PENDING"]
        if attempts != list(range(1, len(attempts) + 1)):
            yield Violation(Kind.ATTEMPT, run.id, f"it was leased as attempts {attempts}")


def _beginning_and_end(run: RunRow, states: list[StateRow]) -> Iterator[Violation]:
    if not states or states[0].type != "SCHEDULED":
        yield Violation(Kind.ILLEGAL_HISTORY, run.id, "it does not begin as SCHEDULED")
    elif (states[-1].id, states[-1].type, states[-1].name) != (run.state_id, run.type, run.name):
        yield Violation(Kind.ILLEGAL_HISTORY, run.id, f"its row says {run.type}, its history {states[-1].type}")
    elif states[-1].attempt != run.attempt:
        yield Violation(
            Kind.ATTEMPT, run.id, f"its row says attempt {run.attempt}, its history {states[-1].attempt}"
        )
    if (run.session is not None) != (run.type in ("PENDING", "RUNNING", "CANCELLING")):
        yield Violation(Kind.ILLEGAL_HISTORY, run.id, f"it is {run.type}, and its session {run.session}")


def _step(before: StateRow, after: StateRow) -> Iterator[Violation]:
    renamed = before.type == after.type == "SCHEDULED"
    if after.type not in _FOLLOWERS[before.type] or (renamed and after.name not in _RENAMED):
        yield Violation(Kind.ILLEGAL_HISTORY, after.run, f"{before.name} was followed by {after.name}")
    if after.timestamp <= before.timestamp:
        yield Violation(Kind.ILLEGAL_HISTORY, after.run, f"{after.name} is not later than {before.name}")
    if after.attempt != before.attempt + (after.type == "PENDING"):
        what = f"{before.name} of attempt {before.attempt} was followed by {after.name} of {after.attempt}"
        yield Violation(Kind.ATTEMPT, after.run, what)


def rewritten(evidence: Evidence) -> Iterator[Violation]:
    """What was in a history once is still there, as it was."""
    for earlier, later in pairwise(evidence.snapshots):
        now = {state.id: state for state in later.states}
        for state in earlier.states:
            if now.get(state.id) != state:
                what = f"{state.name} of attempt {state.attempt} is " + (
                    "gone" if state.id not in now else "changed"
                )
                yield Violation(Kind.REWRITTEN_HISTORY, state.run, what, later.at)


def reporters(evidence: Evidence) -> Iterator[Violation]:
    """Whoever reported a state held the run when it was written."""
    for run_id, states in evidence.states.items():
        holder: tuple[int, str | None] | None = None
        ends = 0
        for state in states:
            if state.type == "PENDING":
                holder = (state.attempt, state.session)
            elif state.session is not None and (state.attempt, state.session) != holder:
                what = f"{state.name} is by {(state.attempt, state.session)}, and the run was {holder}'s"
                yield Violation(Kind.STALE_REPORT, run_id, what)
            if state.type in ("SCHEDULED", *FINAL):
                holder = None
            ends += state.type in ("COMPLETED", "FAILED", "CANCELLED")
        if ends > 1:
            yield Violation(Kind.DOUBLE_COMPLETION, run_id, f"it has ended {ends} times")
