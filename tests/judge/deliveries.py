"""Questions about leases: who was sent what, how often, and what was made of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from itertools import pairwise

from .events import (
    CLOCK,
    Acknowledged,
    Fault,
    LeaseLost,
    Postponed,
    Received,
    Recorded,
    Released,
    Reported,
    Started,
    Submitted,
    Subscribed,
)
from .evidence import FINAL, Evidence
from .violations import Kind, Violation

#: How many of its followers a run is compared with: enough to see any disorder, cheap for any number of runs.
_NEIGHBOURS = 100
#: States of one transaction are a microsecond apart: what is this close counts as one. Microseconds.
_TOGETHER = 100


def leases(evidence: Evidence) -> Iterator[Violation]:
    """Whatever arrives was committed as it arrives, and arrives once."""
    committed = {
        (state.run, state.attempt, state.session)
        for states in evidence.states.values()
        for state in states
        if state.type == "PENDING"
    }
    seen: Counter[tuple[str, int]] = Counter()
    for event in evidence.all(Received):
        seen[event.run, event.attempt] += 1
        if seen[event.run, event.attempt] == 2:
            what = f"attempt {event.attempt} was delivered more than once"
            yield Violation(Kind.ATTEMPT, event.run, what, event.at)
        if event.run in evidence.runs and (event.run, event.attempt, event.session) not in committed:
            what = f"attempt {event.attempt} of session {event.session} was pushed, and is not in the history"
            yield Violation(Kind.UNCOMMITTED, event.run, what, event.at)
    starts = Counter((event.run, event.attempt) for event in evidence.all(Started))
    for (run_id, attempt), count in starts.items():
        if count > 1:
            yield Violation(Kind.ATTEMPT, run_id, f"attempt {attempt} was started {count} times")


def redeliveries(evidence: Evidence, excuses: Collection[str]) -> Iterator[Violation]:
    """What is delivered again failed before, was given back, or something had happened to its worker."""
    given_up = {
        (event.run, event.attempt)
        for kind in (Reported, Released)
        for event in evidence.all(kind)
        if isinstance(event, Released) or event.type == "FAILED"
    }
    faults: dict[str, list[Fault]] = defaultdict(list)
    for fault in evidence.all(Fault):
        faults[fault.who].append(fault)
    received: dict[str, dict[int, Received]] = defaultdict(dict)
    for event in evidence.all(Received):
        received[event.run].setdefault(event.attempt, event)
    for run_id, by_attempt in received.items():
        for first, second in pairwise(by_attempt[attempt] for attempt in sorted(by_attempt)):
            causes = [fault for who in (first.worker, *excuses) for fault in faults[who]]
            if (run_id, first.attempt) in given_up or any(_between(f, first.at, second.at) for f in causes):
                continue
            what = f"{first.worker} had attempt {first.attempt}, and {second.worker} got attempt {second.attempt}"
            yield Violation(Kind.REDELIVERY, run_id, what, second.at)


def postponements(evidence: Evidence) -> Iterator[Violation]:
    """What its worker has put off, and was told so, is not delivered before; unless the time of day was set."""
    released: dict[str, float] = {}
    until: dict[str, Postponed] = {}
    clock_set = -1.0
    for event in evidence.events:
        if isinstance(event, Fault) and event.who == CLOCK:
            clock_set = event.at
            until.clear()
        elif isinstance(event, Released):
            released[event.run] = event.at
        elif isinstance(event, Postponed):
            if released.get(event.run, event.at) > clock_set:
                until[event.run] = event
        elif isinstance(event, Received):
            put_off = until.get(event.run)
            if put_off is not None and event.attempt > put_off.attempt and event.at < put_off.until:
                what = f"attempt {put_off.attempt} was put off until {put_off.until:.6f}"
                yield Violation(Kind.TOO_EARLY, event.run, what, event.at)


def _between(fault: Fault, first: float, second: float) -> bool:
    """Say whether a fault was there after the first delivery and before the second (which may be read late)."""
    end = fault.at if fault.until is None else fault.until
    return end >= min(first, second) and fault.at <= max(first, second)


def verdicts(evidence: Evidence) -> Iterator[Violation]:
    """Each report has a verdict, and what is said to be recorded is."""
    written = {
        (state.run, state.attempt, state.session)
        for states in evidence.states.values()
        for state in states
        if state.session is not None and (state.type in FINAL or state.type == "SCHEDULED")
    }
    completed: dict[str, set[int]] = defaultdict(set)
    reported = {(e.run, e.attempt, e.session): e for e in evidence.all(Reported)}
    for event in evidence.all(Recorded):
        lease = (event.run, event.attempt, event.session)
        if not event.gone and event.run in evidence.runs and lease not in written:
            what = f"attempt {event.attempt} of {event.session} was told to be recorded, and is not"
            yield Violation(Kind.UNWRITTEN_VERDICT, event.run, what, event.at)
        report = reported.get(lease)
        if report is not None and report.type == "COMPLETED":
            completed[event.run].add(event.attempt)
    for event, run_id, attempt, session in _said_to_be_lost(evidence):
        if (run_id, attempt, session) in written:
            what = f"attempt {attempt} of {session} was told to be lost, and its report is recorded"
            yield Violation(Kind.WRONG_VERDICT, run_id, what, event.at)
    for run_id, attempts in completed.items():
        if len(attempts) > 1:
            yield Violation(
                Kind.DOUBLE_COMPLETION, run_id, f"attempts {sorted(attempts)} were recorded as COMPLETED"
            )
    yield from _unanswered(evidence)


def _said_to_be_lost(evidence: Evidence) -> Iterator[tuple[LeaseLost | Subscribed, str, int, str]]:
    """Every lease that a worker heard to be over. A new session knows nothing of the leases of the one before."""
    for lost in evidence.all(LeaseLost):
        yield lost, lost.run, lost.attempt, lost.session
    for subscribed in evidence.all(Subscribed):
        for run_id, attempt in subscribed.lost:
            yield subscribed, run_id, attempt, subscribed.session


def _unanswered(evidence: Evidence) -> Iterator[Violation]:
    """A worker that lives until all is quiet gets its verdicts; one that was killed or has quit, no more."""
    owed: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    for event in evidence.events:
        if isinstance(event, Reported):
            owed[event.worker].setdefault((event.run, event.attempt), event.at)
        elif isinstance(event, Recorded | LeaseLost):
            owed[event.worker].pop((event.run, event.attempt), None)
        elif isinstance(event, Subscribed):
            for run_id, attempt in event.lost:
                owed[event.worker].pop((run_id, attempt), None)
        elif isinstance(event, Fault) and event.what in ("killed", "quit"):
            owed.pop(event.who, None)
    for reports in owed.values() if evidence.quiet else ():
        for (run_id, attempt), at in reports.items():
            yield Violation(Kind.NO_VERDICT, run_id, f"the report of attempt {attempt} was never answered", at)


def limits(evidence: Evidence) -> Iterator[Violation]:
    """A session has never more in flight than slots. Leases of another session of the worker do not count."""
    slots: dict[str, int] = {}
    held: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for event in evidence.events:
        if isinstance(event, Subscribed):
            slots[event.session] = event.limit
            held[event.session] = {lease for lease in held[event.session] if lease[0] in event.resumed}
        elif isinstance(event, Received):
            held[event.session].add((event.run, event.attempt))
            if event.session in slots and len(held[event.session]) > slots[event.session]:
                what = f"session {event.session} has {len(held[event.session])} of {slots[event.session]}"
                yield Violation(Kind.OVER_LIMIT, event.run, what, event.at)
        elif isinstance(event, Reported | Released | LeaseLost):
            held[event.session].discard((event.run, event.attempt))


def order(evidence: Evidence, keys: Collection[str]) -> Iterator[Violation]:
    """Of two runs of a key, one acknowledged before the other was submitted: the first to rank is leased first.

    What is leased in one transaction, to several sessions, has no order.
    """
    submitted: dict[str, Submitted] = {}
    for event in evidence.all(Submitted):
        row = evidence.runs.get(event.run)
        if row is not None and event.payload in ("", row.payload):  # and not what was refused under its id
            submitted.setdefault(event.run, event)
    acknowledged = {event.as_run: event.at for event in reversed(evidence.all(Acknowledged))}
    leased: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for run in evidence.runs.values():
        event = submitted.get(run.id)
        if run.key not in keys or event is None or event.delayed or run.id not in acknowledged:
            continue
        first = next((s.timestamp for s in evidence.states.get(run.id, ()) if s.type == "PENDING"), None)
        if first is not None:
            leased[run.key].append((first, run.id))
    for runs in leased.values():
        runs.sort()
        for i, (first, later) in enumerate(runs):
            for second, earlier in runs[i + 1 : i + 1 + _NEIGHBOURS]:
                before, after = submitted[earlier], submitted[later]
                if second - first <= _TOGETHER:
                    continue
                if acknowledged[earlier] < after.at and before.priority >= after.priority:
                    yield Violation(Kind.ORDER, earlier, f"it was acknowledged before {later} and leased after it")
