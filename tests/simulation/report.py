"""What is shown of a seed: one line if all is well, and what led to it if not."""

from __future__ import annotations

import hashlib

from .. import judge as j
from .world import Outcome

#: Events shown of a seed that is not well.
_SHOWN = 80


def digest(outcome: Outcome) -> str:
    """Return what tells one history from another."""
    total = hashlib.sha256()
    for event in outcome.history:
        total.update(j.dump(event))
    return total.hexdigest()


def trace(outcome: Outcome) -> str:
    """Return what was wrong, and the events that have to do with the first run that was."""
    lines = [f"seed {outcome.seed}: {len(outcome.history)} events in {outcome.seconds:.0f} virtual seconds"]
    lines += [f"  {violation}" for violation in outcome.violations]
    lines += [f"  left in memory: {what}" for what in outcome.residue]
    lines += [f"  failed: {what}" for what in outcome.problems]
    if outcome.violations:
        run = outcome.violations[0].run
        lines += ["", f"  what happened around run {run}:", *_around(outcome, run)]
    return "\n".join(lines)


def _around(outcome: Outcome, run: str) -> list[str]:
    workers = {getattr(event, "worker", "") for event in outcome.history if getattr(event, "run", None) == run}
    who = {*workers, j.BROKER, j.DATABASE}
    found = [f"    {event.at:9.3f} {_short(event)}" for event in outcome.history if _concerns(event, run, who)]
    last = next(event for event in reversed(outcome.history) if isinstance(event, j.Snapshot))
    found += [f"    in the database: {state}" for state in last.states if state.run == run]
    return found[:_SHOWN]


def _concerns(event: j.Event, run: str, who: set[str]) -> bool:
    if isinstance(event, j.Fault):
        return event.who in who
    if isinstance(event, j.Subscribed):
        return event.worker in who
    return getattr(event, "run", None) == run


def _short(event: j.Event) -> str:
    fields = {
        name: getattr(event, name) for name in event.__struct_fields__ if name not in ("at", "run", "payload")
    }
    told = " ".join(f"{name}={value}" for name, value in fields.items() if value not in (None, "", (), False, 0))
    return f"{type(event).__name__} {told}"
