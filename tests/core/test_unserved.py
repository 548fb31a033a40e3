"""Runs that wait for a worker that is not there."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from runlane_broker.storage.tables import TASK_RUN

from ..support import new_database, run
from .harness import broker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


def test_a_key_without_a_worker_is_told_of_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with broker(path) as b:
            unserved, producer = b.core.unserved, b.producer()
            await b.worker("served")
            for key in ("served", "served", "nobody", "nobody"):
                await producer.queued(key)
            await b.quiet()
            b.clock.advance(9.9)
            assert (await unserved.missing(), await unserved.look()) == ([], [])
            b.clock.advance(0.2)
            assert [(key.task_key, key.waiting) for key in await unserved.missing()] == [("nobody", 2)]
            with caplog.at_level(logging.WARNING, "runlane.dispatch"):
                assert await unserved.look() == ["nobody"]
                assert await unserved.look() == []
            assert caplog.messages == ["no worker has asked for nobody: 2 runs wait"]
            b.clock.advance(3600)
            assert await unserved.look() == ["nobody"]
            for run_id in [run.id for run in await b.core.store.runs(TASK_RUN).list()]:
                await b.core.transitions.delete(TASK_RUN, run_id)
            assert await unserved.missing() == []

    run(main())


def test_a_worker_that_comes_ends_it(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            unserved, producer = b.core.unserved, b.producer()
            await producer.queued("k")
            b.clock.advance(11)
            assert len(await unserved.missing()) == 1
            worker = await b.worker("k")
            assert await unserved.missing() == []
            await b.quiet()
            worker.quit()  # what it holds is given back, and waits again
            await b.quiet()
            assert await unserved.missing() == []
            b.clock.advance(11)
            assert [key.waiting for key in await unserved.missing()] == [1]

    run(main())


def test_made_up_keys_take_no_memory_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with broker(path) as b:
            for n in range(3):
                await b.producer().queued(f"key{n}")
            b.clock.advance(11)
            assert [key.task_key for key in await b.core.unserved.missing()] == ["key0", "key1"]

    monkeypatch.setattr("runlane_broker.core.unserved.MAX_KEYS", 2)
    run(main())
