"""What the journals of all parties and the broker's tables, put together, say of an experiment."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from tests import judge as j

from .figures import Figures, spread
from .journal import Event, read

#: A paused worker that goes on begins what had reached it before, in its first second; then it hears what is lost.
_AFTERMATH: Final = 1.0


@dataclass(frozen=True)
class Execution:
    """One call of a task."""

    run: str
    attempt: int
    pid: int
    started: float
    ended: float | None


@dataclass
class Tables:
    """The broker's tables."""

    runs: list[j.RunRow]
    states: list[j.StateRow]
    results: dict[str, bytes | None]
    #: How many runs have lost a worker, and how many have failed.
    lost: int
    failed: int
    sessions: dict[tuple[str, int], str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for state in self.states:
            if state.type == "PENDING":
                self.sessions[state.run, state.attempt] = state.session

    def attempts_called(self, *names: str) -> set[tuple[str, int]]:
        """Return the attempts after which a run was called so."""
        return {(state.run, state.attempt) for state in self.states if state.name in names}


_RUNS = (
    "SELECT id, task_key, state_type, state_name, state_id, attempt, session_id, idempotency_key, parameters,"
    " result FROM task_run JOIN task_run_payload ON task_run_id = id"
)
_STATES = "SELECT id, task_run_id, type, name, timestamp, attempt, session_id FROM task_run_state"


def tables(database: Path) -> Tables:
    """Read a database; one that is damaged raises `AssertionError`."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        rows = connection.execute(_RUNS).fetchall()
        states = [j.StateRow(*row) for row in connection.execute(_STATES)]
        lost, failed = connection.execute("SELECT sum(losses > 0), sum(failures > 0) FROM task_run").fetchone()
    runs = [j.RunRow(*row[:-2], bytes(row[-2]).decode()) for row in rows]
    return Tables(runs, states, {row[0]: row[-1] for row in rows}, lost or 0, failed or 0)


def executions(folder: Path) -> list[Execution]:
    """Return what the tasks noted, in the order of their starts."""
    starts: dict[tuple[str, int, int], float] = {}
    ends: dict[tuple[str, int, int], float] = {}
    for event in read(folder / "executions"):
        (starts if event["event"] == "start" else ends).setdefault(
            (event["run"], event["attempt"], event["pid"]), event["monotonic_ns"] / 1e9
        )
    return [Execution(*key, at, ends.get(key)) for key, at in starts.items()]


# --- From journals to a history ---------------------------------------------------------------------------


def history(folder: Path, found: Tables, done: Iterable[Execution], *, quiet: bool) -> list[j.Event]:
    """Return all that the judge has to know, in the order in which it happened."""
    events: list[j.Event] = []
    for path in sorted(folder.glob("producer-*.jsonl")):
        events += _of_producer(path.stem, read(path))
    events += _of_nemesis(read(folder / "nemesis.jsonl"))
    for execution in done:
        events += _of_execution(execution, found)
    events.sort(key=lambda event: event.at)
    end = events[-1].at + 1 if events else 0.0
    if quiet:
        events.append(j.Quiet(at=end))
    return [*events, j.Snapshot(at=end, runs=tuple(found.runs), states=tuple(found.states))]


def _of_producer(name: str, events: list[Event]) -> Iterator[j.Event]:
    for event in events:
        at, run = event["monotonic_ns"] / 1e9, event.get("run", "")
        match event["event"]:
            case "submit":
                new = event["new"]
                payload = msgspec.json.encode(new["parameters"]).decode()
                yield j.Submitted(
                    at=at, producer=name, run=run, key=new["task_key"], payload=payload, idempotency=event["key"],
                    delayed=new["scheduled_time"] is not None,
                )  # fmt: skip
            case "answer" if event["is"] is None:
                yield j.Refused(at=at, producer=name, run=run, code=event["error"])
            case "answer":
                yield j.Acknowledged(at=at, producer=name, run=run, as_run=event["is"])
            case "watch":
                yield j.Watched(at=at, producer=name, run=run)
            case "end":
                yield j.Told(at=at, producer=name, run=run, type=event["state"])
            case _:
                pass


def _of_nemesis(events: list[Event]) -> Iterator[j.Event]:
    """Faults of processes. The broker's are none: its restarts and pauses are no excuse for anything."""
    healed: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event["event"] == "healed":
            healed[_key(event)].append(event["monotonic_ns"] / 1e9)
    for event in events:
        if event["event"] == "hurt":
            at = event["monotonic_ns"] / 1e9
            until = next((end for end in healed[_key(event)] if end >= at), None)
            if until is not None and event["kind"] == "worker-stop":
                until += _AFTERMATH
            for name, pid in event["parties"]:
                # A producer that is not killed watches on by itself, and must be told of each end once.
                if not name.startswith("producer"):
                    yield j.Fault(at=at, who=str(pid), what=event["kind"], until=until)
                elif event["kind"] == "producer-kill":
                    yield j.Fault(at=at, who=name, what=event["kind"])


def _key(event: Event) -> str:
    return json.dumps([event["kind"], event["parties"]])


def _of_execution(execution: Execution, found: Tables) -> Iterator[j.Event]:
    lease = (execution.run, execution.attempt)
    facts = {
        "worker": str(execution.pid), "session": found.sessions.get(lease) or "?",
        "run": execution.run, "attempt": execution.attempt,
    }  # fmt: skip
    yield j.Received(at=execution.started, **facts)
    yield j.Started(at=execution.started, **facts)
    if execution.ended is not None:
        yield j.Executed(at=execution.ended, **facts)


# --- Judging -----------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What was found, for scenarios that look further."""

    tables: Tables
    executions: list[Execution]
    #: Executions that did not count: their run was given to another worker.
    extra: list[Execution]
    #: Seconds from what was done to a worker until the last of its runs was started elsewhere, by kind.
    takeovers: dict[str, list[float]]
    #: Those among them while nothing was done to the broker or its database, either: each of that takes its time.
    undisturbed: dict[str, list[float]]

    @property
    def costs(self) -> tuple[int, int]:
        """How many runs have lost a worker, and how many have failed."""
        return self.tables.lost, self.tables.failed


def judge(folder: Path, database: Path, figures: Figures, *, quiet: bool = True, strict: bool = True) -> Verdict:
    """Judge what is left of an experiment. `quiet`: all should be done; `strict`: no redelivery without a fault.

    Where timers are so short that a busy machine is silent for longer, that is no promise.
    """
    found = tables(database)
    done = executions(folder)
    events = history(folder, found, done, quiet=quiet)
    # What failed was given up by its worker: that it is delivered again needs no excuse.
    failed = found.attempts_called("AwaitingRetry", "Failed")
    events = [
        *(
            j.Released(at=e.started, worker=str(e.pid), session="", run=e.run, attempt=e.attempt)
            for e in done if (e.run, e.attempt) in failed
        ),
        *events,
    ]  # fmt: skip
    violations = j.judge(events)
    unexplained = [v for v in violations if v.kind is j.Kind.REDELIVERY]
    if not strict:
        violations = [v for v in violations if v.kind is not j.Kind.REDELIVERY]
    figures.failures += [str(violation) for violation in violations]
    figures.failures += _wrong_results(found)
    figures.failures += _complaints(folder)
    requeued = found.attempts_called("Requeued", "Parked")
    extra = [e for e in done if (e.run, e.attempt) in requeued]
    states = Counter(run.name for run in found.runs)
    figures.say("runs", f"{len(found.runs)} ({', '.join(f'{n} {name}' for name, n in states.items())})")
    counts = Counter(violation.kind for violation in violations)
    kinds = (j.Kind.LOST, j.Kind.STUCK, j.Kind.DOUBLE_COMPLETION, j.Kind.ILLEGAL_HISTORY)
    others = sum(counts.values()) - sum(counts[kind] for kind in kinds)
    figures.say("violations", ", ".join(f"{counts[kind]} {kind}" for kind in kinds) + f", {others} others")
    share = len(extra) / max(1, len(done))
    what = (
        f"{len(extra)} of {len(done)} executions ({share:.3%}), {len(unexplained)} with nothing done to the worker"
    )
    figures.say("executed in vain", what)
    takeovers = _takeovers(events, done, extra)
    outages = list(_outages(read(folder / "nemesis.jsonl")))
    calm = [it for it in takeovers if not any(it.overlaps(*outage) for outage in outages)]
    return Verdict(found, done, extra, _by_kind(takeovers), _by_kind(calm))


def _wrong_results(found: Tables) -> Iterator[str]:
    """A result tells which attempt it is of: it must be the one that the history says has completed."""
    for run in found.runs:
        result = found.results[run.id]
        if run.type == "COMPLETED" and result != f'"attempt {run.attempt}"'.encode():
            yield f"run {run.id} completed with attempt {run.attempt}, and has the result {result!r}"


def _complaints(folder: Path) -> Iterator[str]:
    """No traceback and no error in the broker's log, whatever is done to it. (Workers log those of tasks.)"""
    for path in sorted(folder.glob("*.log")):
        pattern = (
            r"^.*(?:Traceback|\bERROR\b|\bCRITICAL\b).*$" if path.stem == "broker" else r"^.*never retrieved.*$"
        )
        bad = re.findall(pattern, path.read_text(), re.MULTILINE)
        if bad:
            yield f"{path.name}: {len(bad)} complaints, the first: {bad[0]}"


@dataclass(frozen=True)
class _Takeover:
    """From what was done to a worker until the last of its runs was started elsewhere."""

    kind: str
    since: float
    until: float

    def overlaps(self, since: float, until: float) -> bool:
        return self.since <= until and since <= self.until


def _outages(events: list[Event]) -> Iterator[tuple[float, float]]:
    """From when until when something was done to the broker or its database, and the start that follows a kill."""
    until = {}
    for event in reversed(events):
        at = event["monotonic_ns"] / 1e9
        if event["event"] == "healed":
            until[_key(event)] = at
        elif not event["parties"]:
            yield at, until.get(_key(event), at) + _AFTERMATH


def _by_kind(takeovers: Iterable[_Takeover]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for it in takeovers:
        found[it.kind].append(it.until - it.since)
    return found


def _takeovers(events: list[j.Event], done: list[Execution], extra: list[Execution]) -> list[_Takeover]:
    faults: dict[str, list[j.Fault]] = defaultdict(list)
    for event in events:
        if isinstance(event, j.Fault):
            faults[event.who].append(event)
    starts: dict[str, list[Execution]] = defaultdict(list)
    for execution in done:
        starts[execution.run].append(execution)
    last: dict[j.Fault, float] = {}
    for before in extra:
        after = min((e.started for e in starts[before.run] if e.attempt > before.attempt), default=None)
        causes = [f for f in faults[str(before.pid)] if after is not None and before.started <= f.at <= after]
        if after is not None and causes:
            last[causes[0]] = max(last.get(causes[0], 0.0), after)
    return [_Takeover(cause.what, cause.at, until) for cause, until in last.items()]


def say_takeovers(verdict: Verdict, figures: Figures) -> None:
    """Say how long takeovers took, by kind."""
    for kind, seconds in sorted(verdict.takeovers.items()):
        figures.say(f"started elsewhere after {kind}", spread(seconds))
        figures.say("    while the broker was left alone", spread(verdict.undisturbed.get(kind, [])))
