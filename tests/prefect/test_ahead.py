"""Runs that are leased before a worker can be sent them: one that never reports, and acknowledges at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runlane.protocol.ids import uuid7
from runlane.protocol.messages import NewRun
from runlane_broker.clock import to_datetime
from runlane_broker.core import pace, taking
from runlane_broker.core.submit import new_run
from runlane_broker.prefect.dialect import Dialect

from .sockets import PATIENCE, Peer, World, world


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is slow, and who has said nothing when he has acknowledged never will."""
    monkeypatch.setattr(pace, "INTRODUCTION_SECONDS", 0.001)
    monkeypatch.setattr(pace, "AHEAD_SECONDS", 1000.0)
    monkeypatch.setattr(pace, "STUCK_SECONDS", 1000.0)
    be_slow_after(1000.0, monkeypatch)


def be_slow_after(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SLOW_SECONDS", seconds)
    monkeypatch.setattr(taking, "SLOW_SECONDS", seconds)


async def sent_one(w: World, worker: Peer, count: int = 6) -> list[str]:
    """Let a worker become known, and have it be sent one run of many that are leased to it; return their ids."""
    for _ in range(8):
        run_id = await w.create()
        assert await worker.take() == run_id
    ids = sorted(await w.create_many(count))
    assert (await worker.hear())["id"] == ids[0]
    for run_id in ids:
        assert await w.eventually(run_id, "Pending")
    return ids


async def given_back(w: World, *run_ids: str) -> None:
    """Wait until nobody holds these runs, and see that it counts for nothing."""
    for run_id in run_ids:
        async with asyncio.timeout(PATIENCE):
            while (await w.run(run_id)).state.type != "SCHEDULED":
                await asyncio.sleep(0.01)
        found = await w.run(run_id)
        assert (found.losses, found.failures) == (0, 0)


def test_it_is_sent_one_by_one_and_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            ids = await sent_one(w, worker, 8)
            assert await worker.hears_nothing()
            await worker.ack()
            assert [await worker.take() for _ in ids[1:]] == ids[1:]

    run(main())


@pytest.mark.parametrize("how", ["cut", "quit"])
def test_what_was_not_sent_goes_to_others_at_once(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with world(tmp_path / "db", resume=60) as w, w.peer() as worker:
            ids = await sent_one(w, worker)
            if how == "cut":
                worker.cut()
            else:
                await worker.say({"type": "quit"})
            await given_back(w, *ids)
            async with w.peer(client_id="host-2") as other:
                assert [await other.take() for _ in ids] == ids

    run(main())


def test_it_waits_when_the_broker_has_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db", resume=60) as w, w.peer() as worker:
            ids = await sent_one(w, worker)
        async with world(tmp_path / "db", resume=60) as w:
            await given_back(w, *ids)
            async with w.peer(client_id="host-2") as other:
                assert [await other.take() for _ in ids] == ids

    run(main())


def test_a_worker_that_becomes_slow_keeps_nothing_from_one_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            be_slow_after(0.05, monkeypatch)
            ids = await sent_one(w, worker)
            async with w.peer(client_id="host-2") as other:
                assert [await other.take() for _ in ids[1:]] == ids[1:]
            await worker.ack()
            assert await worker.hears_nothing()

    run(main())


def test_what_it_was_not_sent_is_kept_while_nobody_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            be_slow_after(0.02, monkeypatch)
            ids = await sent_one(w, worker, 2)
            assert await worker.hears_nothing()
            assert [(await w.run(run_id)).state.name for run_id in ids] == ["Pending", "Pending"]
            await worker.ack()
            assert await worker.take() == ids[1]

    run(main())


def test_nobody_keeps_for_long_what_he_was_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "STUCK_SECONDS", 0.1)

    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            be_slow_after(0.02, monkeypatch)
            ids = await sent_one(w, worker, 3)
            await given_back(w, *ids[1:])
            assert (await w.run(ids[0])).state.type == "PENDING"
            await worker.ack()
            assert [await worker.take() for _ in ids[1:]] == ids[1:]

    run(main())


def test_what_has_expired_is_not_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            ids = await sent_one(w, worker, 1)
            soon = w.core.clock.now() + 300_000
            new = NewRun(id=uuid7(), task_key="k", parameters=msgspec.Raw(b"{}"), expires=to_datetime(soon))
            await w.core.transitions.create_task_runs([new_run(new, w.core.clock.now())])
            assert await w.eventually(new.id, "Pending")
            while w.core.clock.now() <= soon:
                await asyncio.sleep(0.05)
            await worker.ack()
            assert await w.eventually(new.id, "Expired")
            assert await worker.hears_nothing()
            assert (await w.run(ids[0])).state.name == "Pending"

    run(main())


def test_what_somebody_else_says_of_a_run_that_was_not_sent_tells_nothing_of_the_worker(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            ids = await sent_one(w, worker, 4)
            await w.set_state(ids[2], "RUNNING")
            await worker.ack()
            assert [await worker.take() for _ in ids[1:]] == ids[1:]

    run(main())


def test_a_worker_that_reports_after_all_is_given_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PATIENCE_SECONDS", 0.05)

    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            ids = await sent_one(w, worker)
            await w.set_state(ids[0], "RUNNING")
            await given_back(w, *ids[1:])
            await worker.ack()
            await w.set_state(ids[0], "COMPLETED")
            assert (await worker.hear())["id"] == ids[1]
            assert await worker.hears_nothing()
            assert (await w.run(ids[2])).state.type == "SCHEDULED"

    run(main())


def test_what_is_cancelled_is_not_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer() as worker:
            ids = await sent_one(w, worker, 4)
            await w.http.post(f"/api/task_runs/{ids[1]}/cancel")
            await w.http.delete(f"/api/task_runs/{ids[2]}")
            assert await w.eventually(ids[1], "Cancelled")
            await worker.ack()
            assert await worker.take() == ids[3]

    run(main())


def test_what_has_not_left_cannot_be_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise everything would come to wait here for somebody who says he has it, and takes nothing."""
    said = 0

    def take(dialect: Dialect, text: str, take: Any = Dialect.take) -> Any:
        nonlocal said
        said += 1
        return take(dialect, text)

    async def main() -> None:
        async with world(tmp_path / "db") as w, w.peer(max_queue=1) as worker:
            await sent_one(w, worker, 1)
            (session,) = w.core.registry
            port: Any = session.port
            worker.socket.transport.pause_reading()
            monkeypatch.setattr(Dialect, "take", take)
            large = 500_000 * "x"
            for _ in range(30):
                await w.create(parameters={"x": large})
            async with asyncio.timeout(PATIENCE):
                while not port._unsent:
                    await worker.ack()
                    await asyncio.sleep(0.001)
                before = said
                for _ in range(100):
                    await worker.ack()
                while said < before + 100:
                    await asyncio.sleep(0.001)
            assert port._unsent == 1
            worker.cut()

    run(main())
