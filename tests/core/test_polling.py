"""Many who poll one pool: each run is started once, limits hold at any instant, the first in line goes first."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from runlane.protocol.states import StateType
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.storage.operations.handing_out import Asked
from runlane_broker.storage.operations.queues import CreatePool
from runlane_broker.storage.tables import FLOW_RUN

from ..storage.flow_runs import insert_flow_runs
from ..support import new_database, run
from .harness import Broker, broker

#: Queue -> its limit. The pool's own is below their sum.
LIMITS = {"a": 2, "b": 1, "c": 3, "d": None, "default": None}
POOL_LIMIT = 4
RUNS = 40
POLLERS = 8


async def _poll(b: Broker, left: set[str]) -> list[str]:
    """Ask for runs and execute what can be had, until nothing is left. Returns what was started."""
    started: list[str] = []
    while left:
        handed = await b.core.queues.hand_out_of_pool("pool", None, Asked(3))
        for one in handed:
            if not await _set(b, one.run_id, StateType.PENDING):
                continue
            started.append(one.run_id)
            assert await _set(b, one.run_id, StateType.RUNNING)
            await asyncio.sleep(0)
            assert await _set(b, one.run_id, StateType.COMPLETED)
            left.discard(one.run_id)
    return started


async def _set(b: Broker, run_id: str, type_: StateType) -> bool:
    # Without a result the rules let a run that has COMPLETED be started again: for who polled long ago, too.
    data = b'{"type":"reference"}' if type_ is StateType.COMPLETED else None
    outcome = await b.core.transitions.set_state(FLOW_RUN, run_id, Proposed(type_, data=data), force=False)
    assert outcome is not None
    return outcome.wrote


def test_each_run_is_started_once_and_the_limits_hold_at_any_instant(tmp_path: Path) -> None:
    path = new_database(tmp_path)

    async def main() -> None:
        async with broker(path, audited=False) as b:
            await b.core.queues.create_pool(CreatePool("pool", concurrency_limit=POOL_LIMIT))
            queues = {"default": await b.core.store.queues.queue_by_name("pool", "default")}
            for name in ("a", "b", "c", "d"):
                queues[name] = await b.core.queues.create("pool", name, {"concurrency_limit": LIMITS[name]})
            ids = {name: queue.id for name, queue in queues.items() if queue is not None}
            names = list(ids)
            wanted = insert_flow_runs(
                path, *({"work_queue_id": ids[names[i % 5]], "work_queue_name": names[i % 5]} for i in range(RUNS))
            )
            left = set(wanted)
            started = await asyncio.gather(*(_poll(b, left) for _ in range(POLLERS)))
            assert sorted(run_id for one in started for run_id in one) == sorted(wanted)

    run(main())
    with closing(sqlite3.connect(path)) as connection:
        history = connection.execute(
            "SELECT s.flow_run_id, s.type, r.work_queue_name FROM flow_run_state s "
            "JOIN flow_run r ON r.id = s.flow_run_id ORDER BY s.timestamp, s.id"
        ).fetchall()
    assert sum(type_ == "PENDING" for _, type_, _ in history) == RUNS
    under_way: dict[str, str] = {}
    most = 0
    for run_id, type_, name in history:
        if type_ in ("PENDING", "RUNNING"):
            under_way[run_id] = name
        else:
            under_way.pop(run_id, None)
        most = max(most, len(under_way))
        for queue, limit in LIMITS.items():
            if limit is not None:
                assert list(under_way.values()).count(queue) <= limit
    assert 1 < most <= POOL_LIMIT
