"""The subscription socket, as scripted workers drive it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from .sockets import world


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_a_worker_gets_one_run_for_each_acknowledgement(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            ids = [await w.create() for _ in range(3)]
            first = await worker.hear()
            assert first["id"] == ids[0]
            assert first["state"]["type"] == "SCHEDULED"
            assert first["state"]["state_details"]["task_parameters_id"].endswith("0a")
            assert await worker.hears_nothing()
            await worker.ack()
            assert [await worker.take(), await worker.take()] == ids[1:]
            assert (await w.run(ids[2])).state.name == "Pending"

    run(main())


def named(*run_ids: str, name: str = "wait_for") -> dict[str, Any]:
    return {name: [{"input_type": "task_run", "id": run_id} for run_id in run_ids]}


def test_a_run_is_withheld_until_what_it_is_given_has_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer("up", "down") as worker:
            up = [await w.create("up") for _ in range(2)]
            down = await w.create("down", task_inputs=named(*up, "0190a000-0000-7000-8000-000000000000"))
            assert [await worker.take(), await worker.take()] == up
            await w.set_state(up[0], "COMPLETED")
            assert await worker.hears_nothing()
            assert (await w.run(down)).state.name == "Scheduled"
            await w.http.delete(f"/api/task_runs/{up[1]}")
            assert await worker.take() == down
            after = await w.create("down", task_inputs=named(up[0], name="x"))
            assert await worker.take() == after
            child = await w.create("down", task_inputs=named(after, name="__parents__"))
            assert await worker.take() == child

    run(main())


def test_what_waits_for_runs_is_found_again_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w:
            up, other = await w.create("up"), await w.create("up")
            first = await w.create("down", task_inputs=named(up))
            second = await w.create("down", task_inputs=named(other))
            w.core.waiting._awaited.clear()  # as if the broker were killed between the two commits
            await w.set_state(up, "COMPLETED", data=1)
        async with world(tmp_path / "db") as w, w.peer("down") as worker:
            assert await worker.take() == first
            assert await worker.hears_nothing()
            await w.set_state(other, "CANCELLED")
            assert await worker.take() == second

    run(main())
