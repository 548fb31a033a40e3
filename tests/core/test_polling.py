"""Many who poll a pool and many who are pushed its runs: each run is started once, limits hold at any instant.

A few hundred runs; `FAULTS_LONG=1` takes 5,000.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from runlane.protocol import messages as m
from runlane.protocol.states import StateType
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.storage.operations.handing_out import Asked
from runlane_broker.storage.operations.queues import CreatePool
from runlane_broker.storage.records import TransitionOutcome
from runlane_broker.storage.tables import FLOW_RUN

from ..storage.flow_runs import insert_flow_runs
from ..support import new_database
from .harness import Broker, Worker, broker

#: Queue -> its limit, the first in line first. The pool's own is below their sum.
LIMITS = {"a": 2, "b": 1, "c": 3, "d": None, "default": None}
POOL_LIMIT = 10
LONG = os.environ.get("FAULTS_LONG") == "1"
RUNS = 5000 if LONG else 250
#: How many of each kind, and how many runs who polls asks for at a time. Pushed workers hold one run each. Half of
#: those who poll claim what they are given: without, it has been pushed to somebody when they come to start it.
PARTIES, SHARE = 8, 3
SECONDS = 600 if LONG else 60

#: Notes every state in the order in which they are written. Reports are dated when they come in, which is before.
NOTED = """
    CREATE TABLE noted (n INTEGER PRIMARY KEY, run_id, type, queue);
    CREATE TRIGGER created AFTER INSERT ON flow_run BEGIN
        INSERT INTO noted (run_id, type, queue) VALUES (new.id, new.state_type, new.work_queue_name); END;
    CREATE TRIGGER changed AFTER UPDATE OF state_id ON flow_run BEGIN
        INSERT INTO noted (run_id, type, queue) VALUES (new.id, new.state_type, new.work_queue_name); END;
    CREATE TRIGGER claimed AFTER UPDATE OF claimed_until ON flow_run WHEN new.claimed_until > 0 AND
        new.state_id = old.state_id BEGIN
        INSERT INTO noted (run_id, type, queue) VALUES (new.id, 'claimed', new.work_queue_name); END;
"""


class Pushed(Worker):
    """Executes what it is pushed, in no time; tells `left` of what is recorded."""

    left: set[str]

    def runs(self, runs: Sequence[m.PushedRun]) -> None:
        super().runs(runs)
        for run in runs:
            assert run.kind == "flow"
            assert run.work_queue in self.queues
            self.started(run.id, run.attempt)
            asyncio.get_running_loop().call_soon(self.finished, run.id, run.attempt)

    def recorded(self, run_id: str, attempt: int, *, gone: bool = False) -> None:
        super().recorded(run_id, attempt, gone=gone)
        self.left.discard(run_id)


async def _poll(b: Broker, left: set[str], claim: float | None) -> list[str]:
    """Ask for runs and execute what can be had, until nothing is left. Returns what was started."""
    started: list[str] = []
    while left:
        handed = await b.core.queues.hand_out_of_pool("pool", None, Asked(SHARE, claim_seconds=claim))
        for one in handed:
            outcome = await _set(b, one.run_id, StateType.PENDING)
            while claim is not None and "limit" in (outcome.reason or ""):  # nobody else is given it
                await asyncio.sleep(0)
                outcome = await _set(b, one.run_id, StateType.PENDING)
            if not outcome.wrote:
                continue
            started.append(one.run_id)
            assert (await _set(b, one.run_id, StateType.RUNNING)).wrote
            await asyncio.sleep(0)
            assert (await _set(b, one.run_id, StateType.COMPLETED)).wrote
            left.discard(one.run_id)
    return started


async def _set(b: Broker, run_id: str, type_: StateType) -> TransitionOutcome:
    outcome = await b.core.transitions.set_state(FLOW_RUN, run_id, Proposed(type_), force=False)
    assert outcome is not None
    return outcome


async def _start_all(path: Path) -> tuple[Counter[str], Counter[str]]:
    """Let everybody at the runs; return how many were pushed and polled, by run."""
    async with asyncio.timeout(SECONDS), broker(path, audited=False) as b:
        await b.core.queues.create_pool(CreatePool("pool", concurrency_limit=POOL_LIMIT))
        default = await b.core.store.queues.queue_by_name("pool", "default")
        assert default is not None
        ids = {"default": default.id}
        for place, name in enumerate(("a", "b", "c", "d"), 1):
            values = {"concurrency_limit": LIMITS[name], "priority": place}
            ids[name] = (await b.core.queues.create("pool", name, values)).id
        queues = list(LIMITS)
        wanted = insert_flow_runs(
            path,
            *({"work_queue_id": ids[queues[i % 5]], "work_queue_name": queues[i % 5]} for i in range(RUNS)),
        )
        left = set(wanted)
        workers = [Pushed(b.core, *(f"pool/{name}" for name in LIMITS), limit=1) for _ in range(PARTIES)]
        for worker in workers:
            worker.left = left
        await asyncio.gather(*(worker.connected() for worker in workers))
        polled = await asyncio.gather(*(_poll(b, left, 60.0 if i % 2 else None) for i in range(PARTIES)))
        await b.quiet()
        pushed = Counter(run_id for worker in workers for run_id in worker.pushed_ids)
        return pushed, Counter(run_id for one in polled for run_id in one)


def test_each_run_is_started_once_by_priority_and_the_limits_hold_at_any_instant(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(NOTED)
    pushed, polled = asyncio.run(_start_all(path))
    with closing(sqlite3.connect(path)) as connection:
        history = connection.execute(
            "SELECT s.flow_run_id, s.type, r.work_queue_name FROM flow_run_state s "
            "JOIN flow_run r ON r.id = s.flow_run_id ORDER BY s.timestamp, s.id"
        ).fetchall()
        noted = connection.execute("SELECT run_id, type, queue FROM noted ORDER BY n").fetchall()
    assert sorted(note for note in noted if note[1] != "claimed") == sorted(history)
    starts = Counter(run_id for run_id, type_, _ in history if type_ == "PENDING")
    assert len(starts) == RUNS
    assert set(starts.values()) == {1}
    assert pushed + polled == starts
    assert pushed, "nobody was pushed anything"
    assert polled, "nobody could poll anything"
    assert 1 < _most_at_once(history) <= POOL_LIMIT
    assert 1 < _most_at_once([note for note in noted if note[1] != "claimed"]) <= POOL_LIMIT
    # Whoever has decided on a run before a better one could start may still start it: as many as there can be.
    assert _passed_over(noted) <= PARTIES * (1 + SHARE)
    if LONG:
        print(f"{RUNS} runs: {len(pushed)} pushed, {len(polled)} polled; passed over {_passed_over(noted)}")


def _most_at_once(history: list[tuple[str, str, str]]) -> int:
    """Return how many runs were under way at most; no queue may ever have had more than its limit."""
    under_way: dict[str, str] = {}
    most = 0
    for run_id, type_, queue in history:
        if type_ in ("PENDING", "RUNNING"):
            under_way[run_id] = queue
        else:
            under_way.pop(run_id, None)
        most = max(most, len(under_way))
        limit = LIMITS[queue]
        assert limit is None or list(under_way.values()).count(queue) <= limit
    return most


def _passed_over(noted: list[tuple[str, str, str]]) -> int:
    """Return how many runs of later queues were started in a row, at most, while one of an earlier could start.

    One that somebody has claimed could not.
    """
    waiting: dict[str, set[str]] = {queue: set() for queue in LIMITS}
    under_way, in_a_row, most = Counter[str](), Counter[str](), 0
    for run_id, type_, queue in noted:
        if type_ == "PENDING":
            for earlier in list(LIMITS)[: list(LIMITS).index(queue)]:
                limit = LIMITS[earlier]
                could = waiting[earlier] and (limit is None or under_way[earlier] < limit)
                in_a_row[earlier] = in_a_row[earlier] + 1 if could else 0
                most = max(most, in_a_row[earlier])
            in_a_row[queue] = 0
        (waiting[queue].add if type_ == "SCHEDULED" else waiting[queue].discard)(run_id)
        under_way[queue] += (type_ == "PENDING") - (type_ == "COMPLETED")
    return most
