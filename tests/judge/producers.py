"""Questions about what producers were promised."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from .events import (
    Acknowledged,
    CancelAnswered,
    Executed,
    Fault,
    Received,
    Refused,
    Started,
    Submitted,
    Told,
    Unwatched,
    Watched,
)
from .evidence import FINAL, Evidence
from .violations import Kind, Violation

#: Refusals of an id that somebody else's run has: that one is there.
_CONFLICTS = frozenset({"id_conflict", "idempotency_conflict"})


def phantoms(evidence: Evidence) -> Iterator[Violation]:
    """What is there was asked for, and what is COMPLETED was executed."""
    asked = Counter(event.run for event in evidence.all(Submitted))
    refused = Counter(event.run for event in evidence.all(Refused))
    wanted = {run for run, count in asked.items() if count > refused[run]}
    wanted |= {event.run for event in evidence.all(Refused) if event.code in _CONFLICTS}
    executed = {(event.run, event.attempt) for event in evidence.all(Executed)}
    acting = {event.run: event.at for kind in (Executed, Started, Received) for event in evidence.all(kind)}
    for run_id in evidence.runs.keys() - wanted:
        yield Violation(Kind.PHANTOM, run_id, "it is there, and nobody asked for it")
    for run_id, at in acting.items():
        if run_id not in wanted:
            yield Violation(Kind.PHANTOM, run_id, "it was executed, and nobody asked for it", at)
    for run in evidence.runs.values():
        if run.type == "COMPLETED" and (run.id, run.attempt) not in executed:
            yield Violation(Kind.PHANTOM, run.id, f"it is COMPLETED, and attempt {run.attempt} was never executed")


def endings(evidence: Evidence) -> Iterator[Violation]:
    """What was acknowledged is there, and ends."""
    for run_id, at in {event.as_run: event.at for event in evidence.all(Acknowledged)}.items():
        run = evidence.runs.get(run_id)
        if run is None:
            yield Violation(Kind.LOST, run_id, "it was acknowledged, and is not there", at)
        elif evidence.quiet and run.type == "SCHEDULED":
            yield Violation(Kind.LOST, run_id, f"it was acknowledged, and waits for ever as {run.name}", at)
    for run in evidence.runs.values() if evidence.quiet else ():
        if run.type not in FINAL and run.type != "SCHEDULED":
            yield Violation(Kind.STUCK, run.id, f"it is {run.name} for ever, held by {run.session}")


def idempotency(evidence: Evidence) -> Iterator[Violation]:
    """One key has one run, and one id one payload."""
    by_key: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in evidence.runs.values():
        if run.idempotency is not None:
            by_key[run.key, run.idempotency].add(run.id)
    asked: dict[tuple[str, str, str | None], Submitted] = {}
    answers: dict[str, set[str]] = defaultdict(set)
    for event in evidence.events:
        if isinstance(event, Submitted):
            asked[event.producer, event.run, None] = asked[event.producer, event.run, event.payload] = event
        elif isinstance(event, Acknowledged):
            submitted = asked.get((event.producer, event.run, event.payload))
            if submitted is None:
                continue
            answers[event.as_run].add(submitted.payload if event.payload is None else event.payload)
            if submitted.idempotency is not None:
                by_key[submitted.key, submitted.idempotency].add(event.as_run)
    for (key, idempotency_key), runs in by_key.items():
        if len(runs) > 1:
            first, *others = sorted(runs)
            yield Violation(Kind.IDEMPOTENCY, first, f"{key} has {idempotency_key} for {others} too")
    for run_id, payloads in answers.items():
        row = evidence.runs.get(run_id)
        known = (payloads | ({row.payload} if row is not None else set())) - {""}
        if len(known) > 1:
            yield Violation(Kind.IDEMPOTENCY, run_id, f"it was acknowledged for {len(known)} payloads")


def ends_told(evidence: Evidence) -> Iterator[Violation]:
    """Whoever was told of an end was told the truth. One that was CRASHED may be requeued."""
    told = [(event.run, event.type, event.at) for event in evidence.all(Told)]
    told += [(event.run, event.type, event.at) for event in evidence.all(CancelAnswered) if event.type in FINAL]
    for run_id, type_, at in told:
        run = evidence.runs.get(run_id)
        if run is not None and run.type != type_ and type_ != "CRASHED":
            yield Violation(Kind.END_CHANGED, run_id, f"{type_} was told, and it is {run.type}", at)


def watchers(evidence: Evidence) -> Iterator[Violation]:
    """Who watches is told, once for each time he asked at most, unless his connection broke."""
    asked: dict[tuple[str, str], int] = defaultdict(int)
    told: dict[tuple[str, str], int] = defaultdict(int)
    for event in evidence.events:
        match event:
            case Watched(producer=producer, run=run_id):
                asked[producer, run_id] += 1
            case Told(producer=producer, run=run_id):
                told[producer, run_id] += 1
                if told[producer, run_id] > asked[producer, run_id]:
                    what = f"{producer} was told of it more often than it asked"
                    yield Violation(Kind.UNTOLD, run_id, what, event.at)
            case Unwatched(producer=producer, run=run_id):
                asked[producer, run_id] -= 1  # it may have asked again before it heard of that
            case Fault(who=who, what="cut" | "killed" | "quit"):
                for watch in [watch for watch in asked if who == watch[0]]:
                    del asked[watch]
                    told.pop(watch, None)
            case _:
                pass
    for (producer, run_id), count in asked.items() if evidence.quiet else ():
        run = evidence.runs.get(run_id)
        if count and not told[producer, run_id] and run is not None and run.type in FINAL:
            yield Violation(Kind.UNTOLD, run_id, f"{producer} watches, and was not told that it is {run.type}")


def cancelled_starts(evidence: Evidence) -> Iterator[Violation]:
    """What is CANCELLED, and known to be, does not start; somebody may still act on a lease of before.

    Such a lease had arrived by then, or something was done to its worker that let it arrive late.
    """
    cancelled: dict[str, float] = {}
    arrived: set[tuple[str, int]] = set()
    for event in evidence.events:
        if isinstance(event, CancelAnswered) and event.type == "CANCELLED":
            cancelled.setdefault(event.run, event.at)
        elif isinstance(event, Received) and event.run not in cancelled:
            arrived.add((event.run, event.attempt))
        elif isinstance(event, Started) and event.run in cancelled and (event.run, event.attempt) not in arrived:
            if _came_late(evidence, event, cancelled[event.run]):
                continue
            what = f"attempt {event.attempt} was started when it was known to be CANCELLED"
            yield Violation(Kind.CANCELLED_START, event.run, what, event.at)


def _came_late(evidence: Evidence, started: Started, cancelled_at: float) -> bool:
    """Say whether the lease is older than the cancel, and its worker was stopped or cut off meanwhile."""
    types = [
        state.type if state.attempt == started.attempt or state.type == "CANCELLED" else ""
        for state in evidence.states.get(started.run, ())
    ]
    leased_before = "PENDING" in types[: types.index("CANCELLED")] if "CANCELLED" in types else False
    return leased_before and any(
        fault.who == started.worker
        and fault.until is not None
        and fault.at <= started.at
        and fault.until >= cancelled_at
        for fault in evidence.all(Fault)
    )
