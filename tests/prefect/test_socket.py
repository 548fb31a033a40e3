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
