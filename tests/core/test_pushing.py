"""Flow runs that are pushed to who serves their work queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runlane.protocol.states import StateType
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.orchestration.details import StateDetails
from runlane_broker.storage.operations.queues import CreatePool, QueueKey
from runlane_broker.storage.records import NewFlowRun, TransitionOutcome
from runlane_broker.storage.tables import FLOW_RUN

from ..support import SECOND, START, new_database, new_id, run
from .harness import Broker, broker

SCHEDULED = Proposed(StateType.SCHEDULED)


async def pool(b: Broker, *queues: str, limit: int | None = None, **limits: int | None) -> None:
    """A pool `p` with these queues, the first in line first; its default queue comes before them."""
    await b.core.queues.create_pool(CreatePool("p", concurrency_limit=limit))
    for name in queues:
        await b.core.queues.create("p", name, {"concurrency_limit": limits.get(name)})


async def flow_run(b: Broker, queue: str = "a", initial: Proposed = SCHEDULED, **changes: Any) -> str:
    """Create a flow run over HTTP's way in, and return its id."""
    made = await b.core.flows.create("flow", (), {})
    new = NewFlowRun(new_id(), made.id, "run", initial, work_pool_name="p", work_queue_name=queue, **changes)
    created = await b.core.transitions.create_flow_run(new)
    return created.id


async def set_state(b: Broker, run_id: str, type_: StateType, **changes: Any) -> TransitionOutcome:
    outcome = await b.core.transitions.set_state(FLOW_RUN, run_id, Proposed(type_, **changes))
    assert outcome is not None
    return outcome


async def state(b: Broker, run_id: str) -> tuple[StateType, str]:
    record = await b.core.store.flow_runs.get(run_id)
    assert record is not None
    return record.state.type, record.state.name


async def names(b: Broker, run_id: str) -> list[str]:
    return [state.name for state in await b.core.store.flow_runs.states(run_id)]


async def update(b: Broker, queue: str, **changes: Any) -> None:
    await b.core.queues.update(QueueKey(pool="p", name=queue), changes)


def due_in(seconds: float) -> Proposed:
    return Proposed(StateType.SCHEDULED, details=StateDetails(scheduled_time=START + round(seconds * SECOND)))


def test_a_run_is_pushed_when_it_is_created_and_reported_like_any_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with broker(new_database(tmp_path)) as b:
            await pool(b, "a")
            worker = await b.worker("p/a")
            run_id = await flow_run(b, parameters=b'{"x":1}')
            assert await worker.wait_for("run") == ("run", run_id, 1, b'{"x":1}')
            assert await state(b, run_id) == (StateType.PENDING, "Pending")
            worker.started(run_id)
            worker.finished(run_id, result=b'{"y":2}')
            assert await worker.wait_for("recorded") == ("recorded", run_id, 1, False)
            assert await names(b, run_id) == ["Scheduled", "Pending", "Running", "Completed"]
            record = await b.core.store.flow_runs.get(run_id)
            assert record is not None
            assert record.state.data == b'{"y":2}'
            assert record.run_count == 1

    run(main())
