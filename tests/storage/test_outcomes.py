"""Outcomes that several ask for at the same time: how often is read, and for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runlane_broker.errors import StoreUnavailable
from runlane_broker.storage.outcomes import OutcomeReader


class Connection:
    """Finds nothing, once it may; notes how many runs each read was about."""

    def __init__(self) -> None:
        self.reads: list[int] = []
        self.may = asyncio.Event()
        self.fails = False
        self.cut_off = False

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[Any]:
        try:
            yield self
        except asyncio.CancelledError:
            self.cut_off = True
            raise

    async def execute(self, statement: Any, parameters: dict[str, list[str]]) -> Any:
        (ids,) = parameters.values()
        self.reads.append(len(ids))
        await self.may.wait()
        if self.fails:
            raise StoreUnavailable("locked")
        return self

    def all(self) -> list[Any]:
        return []


async def asked(reader: OutcomeReader, *ids: str) -> asyncio.Task[Any]:
    task = asyncio.create_task(reader.of(ids))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


def test_what_is_asked_while_a_read_is_under_way_is_one_read() -> None:
    async def main() -> None:
        connection = Connection()
        reader = OutcomeReader(connection.reading)
        tasks = [await asked(reader, "first")]
        tasks += [await asked(reader, f"run {n % 10}", f"run {n % 7}") for n in range(100)]
        connection.may.set()
        assert await asyncio.gather(*tasks) == [{}] * 101
        assert connection.reads == [1, 10]
        assert await reader.of([]) == {}

    asyncio.run(main())


def test_a_read_is_about_50_runs_and_who_asks_for_many_waits_for_those_who_asked_before() -> None:
    async def main() -> None:
        connection = Connection()
        reader = OutcomeReader(connection.reading)
        many = await asked(reader, *(f"run {n}" for n in range(120)))
        few = [await asked(reader, f"other {n}") for n in range(40)]
        connection.may.set()
        await asyncio.gather(many, *few)
        assert connection.reads == [50, 40, 50, 20]

    asyncio.run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_a_read_that_nobody_waits_for_any_more_is_not_cut_off(fails: bool) -> None:
    """A driver's connection in the middle of a read could only be thrown away."""

    async def main() -> None:
        connection = Connection()
        connection.fails = fails
        reader = OutcomeReader(connection.reading)
        gone, also_gone, patient = [await asked(reader, run_id) for run_id in ("a", "b", "c")]
        gone.cancel()
        also_gone.cancel()
        await asyncio.sleep(0)
        assert gone.done()
        closing = asyncio.create_task(reader.close())
        await asyncio.sleep(0)
        assert not closing.done()
        connection.may.set()
        await asyncio.gather(closing, patient, return_exceptions=True)
        assert connection.reads == [1, 1], "nobody asks for b any more"
        assert not connection.cut_off
        assert isinstance(patient.exception(), StoreUnavailable) is fails
        connection.fails = False
        assert await reader.of(["d"]) == {}

    asyncio.run(main())
