"""A backlog, as workers of Prefect's meet it: none of it blocks, and none is lost with the broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.faults.harness import site

from .sockets import Clients, Peer, world


def test_a_backlog_without_a_worker_blocks_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w:
            ids = [run_id for _ in range(5) for run_id in await w.create_many(1000)]
            other = await w.create("other")
            async with w.peer("other") as worker:
                assert await worker.take() == other
            async with w.peer() as worker:
                assert [await worker.take() for _ in range(20)] == ids[:20]

    asyncio.run(main())


@pytest.mark.process
def test_all_that_was_queued_is_delivered_after_a_kill(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            site(tmp_path) as place,
            httpx.AsyncClient(base_url=place.url, trust_env=False, timeout=30) as http,
        ):
            clients = Clients(place.url, http)
            broker = await place.broker()
            ids = await clients.create_many(1000)
            await broker.kill()
            await place.broker()
            taken: list[str] = []
            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    group.create_task(take_all(clients, number, taken, len(ids)))
            assert sorted(taken) == sorted(ids)

    asyncio.run(main())


async def take_all(clients: Clients, number: int, taken: list[str], count: int) -> None:
    """Acknowledge whatever comes, until all of it has."""
    async with clients.peer(client_id=f"host-{number}") as worker:
        while len(taken) < count:
            taken += await take_if_any(worker)


async def take_if_any(worker: Peer) -> list[str]:
    try:
        run = await worker.hear(0.5)
    except TimeoutError:
        return []
    await worker.ack()
    return [run["id"]]
