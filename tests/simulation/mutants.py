"""Mistakes made on purpose, and what notices them: `make mutants`.

Each mutant is a change of the product: a text, which must be in its file exactly once, and what takes its place.
So other edits leave it alone, and a test says which one no longer fits. The simulation has to find each in its
first seeds. What it cannot see (nobody here lies about a token), what the database makes up for, and what too few
seeds come upon, has a test named that has to find it then.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
#: So many seeds must do.
SEEDS: Final = 20
#: A mutant may well go round in circles. Seconds.
_PATIENCE: Final = 600
_FOUND = re.compile(r"^seed (\d+):.*\n  (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Edit:
    """A text in a file of `broker/runlane_broker`, and what takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A mistake. `test`: what finds it where the simulation does not."""

    name: str
    what: str
    edits: tuple[Edit, ...]
    test: str | None = None


def _one(name: str, what: str, file: str, old: str, new: str, *, test: str | None = None) -> Mutant:
    return Mutant(name, what, (Edit(file, old, new),), test)


MUTANTS: Final[Sequence[Mutant]] = (
    # Fences
    _one(
        "finish-unfenced",
        "whoever reports an end ends the run",
        "storage/operations/leasing.py",
        "row, is_there = find_lease(tx, self.run_id, self.attempt, self.session_id)",
        "found = tx.row(q.TASK_LEASES.read, {'id': self.run_id})\n"
        "        row = LeaseRow._make((*found, q.TASK_LEASES)) if found and found[7] else None\n"
        "        is_there = found is not None",
    ),
    _one(
        "start-unfenced",
        "whoever says that a run has started starts it",
        "storage/queries/leases.py",
        ".where(_is_held_as_given(kind), t.state_type == const(StateType.PENDING))",
        '.where(t.id == param("id"), t.state_type == const(StateType.PENDING))',
    ),
    _one(
        "release-unfenced",
        "a run is released by its id, whoever holds it",
        "storage/operations/leasing.py",
        "row, _ = find_lease(tx, release.run_id, release.attempt, self.session_id)",
        "found = tx.row(q.TASK_LEASES.read, {'id': release.run_id})\n"
        "            row = LeaseRow._make((*found, q.TASK_LEASES)) if found and found[7] else None",
    ),
    _one(
        "attempt-reused",
        "a run that is leased again keeps its attempt",
        "storage/queries/leases.py",
        "attempt=run.attempt + ONE,",
        "attempt=func.max(run.attempt, ONE),",
    ),
    _one(
        "report-forgotten",
        "a repeated report is answered as somebody else's",
        "storage/operations/lease_rows.py",
        "    return any(tx.row(statements.find_report, lease) is not None for statements in q.ALL_LEASES)",
        "    return False",
    ),
    _one(
        "token-unchecked",
        "a session is resumed with any token",
        "storage/operations/sessions.py",
        "hmac.compare_digest(hash_token(self.token), row[2])",
        "True",
        test="tests/storage/test_sqlite.py",
    ),
    # Commit first
    Mutant(
        "ack-before-commit",
        "a submit is acknowledged before it is on the disk",
        (
            Edit("core/submit.py", "SCHEDULED_LANE, Creation,", "SCHEDULED_LANE, Created, Creation,"),
            Edit(
                "core/submit.py",
                "        self._store.submit(CreateRuns(records, shows), "
                "partial(self._created, records, plan, done))",
                "        done(tuple(Created(run.id, Creation.CREATED) for run in records))\n"
                "        written = partial(self._created, records, plan, lambda _: None)\n"
                "        self._store.submit(CreateRuns(records, shows), written)",
            ),
        ),
    ),
    _one(
        "push-without-commit",
        "a run whose insert failed is pushed all the same",
        "core/submit.py",
        "how = Creation.EXISTED if failed else outcomes[i].how",
        "how = (Creation.LEASED if plan.get(i) else Creation.EXISTED) if failed else outcomes[i].how",
    ),
    _one(
        "verdict-before-commit",
        "a report is recorded, says the broker, and writes it then",
        "core/reports.py",
        "        self._drop(session, frame.id, frame.attempt)\n        operation = _finish(",
        "        self._drop(session, frame.id, frame.attempt)\n"
        "        if session.port is not None:\n"
        "            session.port.recorded(frame.id, frame.attempt)\n"
        "        operation = _finish(",
    ),
    _one(
        "postponed-before-commit",
        "a run is put off, says the broker, and writes it then",
        "core/reports.py",
        "        session.given_back |= leases\n",
        "        session.given_back |= leases\n        self._answer(session, postponed)\n",
        test="tests/core/test_outages.py",
    ),
    _one(
        "unknown-is-failed",
        "a commit that raised has not happened, is assumed",
        "storage/sqlite.py",
        "            if self._last_commit() != self._number:\n",
        "            if True:\n",
    ),
    _one(
        "no-persistence",
        "what must be written is tried once",
        "core/dispatching.py",
        "if isinstance(outcome, StoreUnavailable) and not self._closed:",
        "if False:",
        test="tests/core/test_outages.py",
    ),
    # Windows
    _one(
        "first-window-only",
        "after a refill there is nothing more in the database, is assumed",
        "dispatch/queue.py",
        "self._spilled = not complete or len(certain) > self.size",
        "self._spilled = False",
    ),
    _one(
        "no-restore",
        "a new window is complete, is assumed",
        "dispatch/queue.py",
        "        self._spilled = True\n        self._stale = False\n",
        "        self._spilled = False\n        self._stale = False\n",
    ),
    _one(
        "due-unnoticed",
        "runs come due, and no window is told",
        "core/dispatching.py",
        "        for key in keys:\n            self._dispatcher.mark_due(key)\n",
        "",
    ),
    _one(
        "never-arrived",
        "a submit stays on its way to the writer for ever",
        "core/submit.py",
        "            if i in plan:\n                self._dispatcher.arrived(run.task_key)\n",
        "",
    ),
    _one(
        "hand-off-spilled",
        "a new run is handed off though others wait in the database",
        "dispatch/dispatcher.py",
        "if queue is None or queue or not queue.complete:",
        "if queue is None or queue:",
        test="tests/dispatch/test_dispatcher.py",
    ),
    # Each of the two alone changes nothing: where a run waits in the window, no session waits for one.
    Mutant(
        "hand-off-overtakes",
        "a new run is handed off though others wait in the window",
        (
            Edit(
                "dispatch/dispatcher.py",
                "if queue is None or queue or not queue.complete:",
                "if queue is None or not queue.complete:",
            ),
            Edit(
                "dispatch/dispatcher.py",
                "for group in self._groups_of[key] if not group.queue.ready)",
                "for group in self._groups_of[key])",
            ),
        ),
        test="tests/dispatch/test_dispatcher.py",
    ),
    _one(
        "old-refill-wins",
        "a row that was read before a cancel comes back after it",
        "dispatch/queue.py",
        "arrived = self._refill is not None and self._refill.forget(run_id)",
        "arrived = False",
        test="tests/dispatch/test_queue.py",
    ),
    _one(
        "retry-lane-lost",
        "a retry queues behind what came after it",
        "storage/operations/leasing.py",
        "queued = QueuedRecord(row.id, row.task_key, row.priority, row.retry_lane, due)\n            return",
        "queued = QueuedRecord(row.id, row.task_key, row.priority, 1, due)\n            return",
        test="tests/core/test_sessions.py",
    ),
    # Slots
    _one(
        "slot-leak",
        "a report does not free its slot",
        "core/reports.py",
        "        self._drop(session, frame.id, frame.attempt)\n        operation = _finish(",
        "        operation = _finish(",
    ),
    _one(
        "abort-leak",
        "a lease that failed keeps its slot",
        "dispatch/dispatcher.py",
        "        if session is not None:\n            session.reserved -= 1\n            self._offer(session)\n",
        "",
    ),
    _one(
        "confirm-gone",
        "a lease is confirmed for a session whose socket is gone",
        "dispatch/dispatcher.py",
        "        if session.connected:\n            session.in_flight[run.id] = None\n",
        "        if True:\n            session.in_flight[run.id] = None\n",
    ),
    _one(
        "limit-unchecked",
        "what is reserved takes no slot",
        "dispatch/group.py",
        "self.limit - self.reserved - len(self.in_flight)",
        "self.limit - len(self.in_flight)",
    ),
    # Sessions
    _one(
        "grace-from-before",
        "the grace of adopted sessions is over when the broker starts",
        "core/sessions.py",
        "        session = Session(session_id, epoch, client_id)\n"
        "        session.grace_until = self._clock.monotonic() + self._settings.timers.resume\n",
        "        session = Session(session_id, epoch, client_id)\n"
        "        session.grace_until = self._clock.monotonic()\n",
        test="tests/core/test_recovery.py",
    ),
    _one(
        "grace-not-renewed",
        "whoever could not come back while the database was away is lost",
        "storage/store.py",
        "        self._writer.on_recovery = call\n",
        "        pass\n",
        test="tests/core/test_outages.py",
    ),
    _one(
        "pause-unnoticed",
        "a broker that was stopped takes its peers for dead",
        "core/supervision.py",
        "        if gap > _PAUSED:\n",
        "        if False:\n",
        test="tests/core/test_supervision.py",
    ),
    _one(
        "adoption-skipped",
        "the sessions of the broker before are forgotten",
        "core/core.py",
        "        for session in backlog.sessions:\n",
        "        for session in backlog.sessions[:0]:\n",
    ),
    _one(
        "resume-keeps-unlisted",
        "what a worker does not list stays leased to it",
        "storage/operations/sessions.py",
        'freeing.free(tx, lease, "The run had not arrived when the connection broke.")',
        "pass",
    ),
    _one(
        "resume-loses-reported",
        "a report whose verdict went missing is lost at the resumption",
        "storage/operations/sessions.py",
        "reported = [e for e in self.running if e in listed and has_reported(tx, *e, self.session_id)]",
        "reported: list[tuple[str, int]] = []",
    ),
    _one(
        "epoch-not-raised",
        "a resumption leaves the session's epoch",
        "storage/queries/sessions.py",
        "epoch=s.epoch + ONE,",
        "epoch=s.epoch,",
    ),
    _one(
        "end-ignores-epoch",
        "a session is ended though it was resumed meanwhile",
        "storage/queries/sessions.py",
        'return delete(worker_session).where(s.id == param("session_id"), s.epoch == param("epoch"))',
        'return delete(worker_session).where(s.id == param("session_id"))',
        test="tests/storage/test_sqlite.py",
    ),
    _one(
        "lost-keeps-runs",
        "the runs of a lost session stay with it",
        "storage/operations/sessions.py",
        "            freeing.free(tx, lease, self.reason)\n",
        "            pass\n",
    ),
    _one(
        "lease-to-the-dead",
        "a run is leased to a session that has ended",
        "storage/operations/leasing.py",
        "        if not holds(tx, self.holder):\n",
        "        if False:\n",
        test="tests/storage/test_sqlite.py",
    ),
    # Producers
    _one(
        "idempotency-unchecked",
        "an idempotency key is not looked up",
        "storage/operations/creating.py",
        "        if run.idempotency_key is not None:\n",
        "        if False:\n",
    ),
    _one(
        "idempotency-any-payload",
        "an idempotency key stands for any payload",
        "storage/operations/creating.py",
        "same = existing[1] == run.payload_hash",
        "same = True",
    ),
    _one(
        "id-any-payload",
        "an id stands for any payload",
        "storage/operations/creating.py",
        "same = row is not None and row[0] == run.payload_hash and run.dynamic_key == run.id",
        "same = True",
    ),
    _one(
        "watch-too-late",
        "who watches what has ended is not told",
        "core/watching.py",
        "                ended.append(final)\n",
        "                pass\n",
    ),
    _one(
        "watchers-forgotten",
        "who watches a run that is retried is forgotten",
        "core/hub.py",
        "        self._progress.pop(run_id, None)\n",
        "        self._progress.pop(run_id, None)\n        self._watchers.pop(run_id, None)\n",
    ),
    _one(
        "outbox-unbounded",
        "a peer that takes nothing is sent everything",
        "gateway/outbox.py",
        "if self.bytes + len(frame) > self._limit:",
        "if False:",
        test="tests/edges",
    ),
)


def apply(mutant: Mutant, root: Path) -> None:
    """Make the mistake in a copy of the tree. Raises `ValueError` if it no longer fits."""
    for edit in mutant.edits:
        path = root / "broker" / "runlane_broker" / edit.file
        text = path.read_text(encoding="utf-8")
        if text.count(edit.old) != 1:
            raise ValueError(f"{mutant.name}: {edit.file} has this {text.count(edit.old)} times: {edit.old}")
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


def hunt(mutant: Mutant, seeds: int = SEEDS) -> str | None:
    """Say what finds a mutant; None: nothing does."""
    with TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder)
        for part in ("broker", "clients", "tests", "pyproject.toml"):
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, root / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / part)
        apply(mutant, root)
        return _by_simulation(root, seeds) or (_by_test(mutant.test, root) if mutant.test else None)


def _by_simulation(root: Path, seeds: int) -> str | None:
    command = [sys.executable, "-m", "tests.simulation", str(seeds), "--jobs", "1", "--most", "1"]
    try:
        run = _run(command, root)
    except subprocess.TimeoutExpired:
        return "a seed that never ends"
    if run.returncode == 0:
        return None
    found = _FOUND.search(run.stdout)
    if found is None:
        return f"a simulation that fails: {(run.stderr.strip().splitlines() or ['?'])[-1]}"
    return f"seed {found[1]}: {found[2].strip()}"


def _by_test(test: str, root: Path) -> str | None:
    run = _run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test], root)
    failed = re.search(r"^FAILED (\S+)", run.stdout, re.MULTILINE)
    return None if run.returncode == 0 else f"test {failed[1] if failed else test}"


def _run(command: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(root / part) for part in (".", "broker", "clients"))
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )


def main() -> int:
    """Hunt all of them, or those that are named, and show what found each."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    known = [mutant.name for mutant in MUTANTS]
    parser.add_argument("names", nargs="*", help=f"only these; there are {', '.join(known)}")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(known)):
        parser.error(f"there is no mutant {unknown[0]!r}; there are {', '.join(known)}")
    chosen = [mutant for mutant in MUTANTS if not args.names or mutant.name in args.names]
    seen = survived = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for mutant, found in zip(chosen, pool.map(lambda m: hunt(m, args.seeds), chosen), strict=True):
            survived += found is None
            seen += found is not None and not found.startswith("test ")
            print(f"{mutant.name:24} {mutant.what:72} {(found or 'SURVIVED')[:110]}", flush=True)
    by_test = len(chosen) - seen - survived
    print(f"{len(chosen)} mutants: {seen} found in {args.seeds} seeds, {by_test} by a test, {survived} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
