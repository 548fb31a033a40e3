"""What type checkers have to understand: every line here passes pyright and mypy, both strict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any, assert_type
from uuid import UUID

from runlane import (
    BoundRun,
    Client,
    JsonSerializer,
    RunFuture,
    RunlaneError,
    Serializer,
    Settings,
    Submitter,
    Task,
    agather,
    asubmit_many,
    gather,
    submit_many,
    task,
)


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task()
async def fetch(url: str, *, retries: int = 3) -> bytes:
    return url.encode() * retries


class Rot13(JsonSerializer):
    content_type = "application/x-rot13"


class Msgpack:
    content_type = "application/msgpack"

    def dumps(self, value: Any) -> bytes:
        return b""

    def loads(self, data: bytes) -> Any:
        return None


@task(
    key="report",
    retries=3,
    retry_delay=[1, timedelta(minutes=1)],
    retry_jitter=0.5,
    timeout=timedelta(minutes=5),
    expires=3600,
    priority=5,
    tags=["x"],
    headers={"a": "b"},
    pool="process",
    fence=True,
    serializer=Rot13(),
    retry_on=(OSError, TimeoutError),
    no_retry_on=FileNotFoundError,
)
def report(name: str, when: datetime, *lines: str) -> list[str]:
    return [name, str(when), *lines]


@task(serializer=Msgpack())
def ping() -> None: ...


serializer: Serializer = Msgpack()


def called_in_place() -> None:
    assert_type(add(1, b=2), int)
    assert_type(report("a", datetime.now(UTC), "b"), list[str])


async def awaited_in_place() -> None:
    assert_type(await fetch("x", retries=1), bytes)


def in_sync_code() -> None:
    assert_type(add.delay(1, b=2), RunFuture[int])
    assert_type(add.delay(1).result(timeout=10), int)
    assert_type(fetch.delay("x").result(), bytes)
    assert_type(add.map([1, 2]), list[RunFuture[int]])
    assert_type(add.map(range(3), repeat(4)), list[RunFuture[int]])
    assert_type(fetch.map(["x"]), list[RunFuture[bytes]])
    assert_type(report.map(["a"], [datetime.now(UTC)], ["b"]), list[RunFuture[list[str]]])
    assert_type(gather(add.delay(1), add.delay(2), timeout=5), list[int])
    assert_type(gather(add.delay(1), return_exceptions=True), list[int | RunlaneError])
    with Client(Settings(url="http://localhost:4200"), submit_timeout=5) as client:
        assert_type(client, Client)


async def in_async_code() -> None:
    assert_type(await add.adelay(1), RunFuture[int])
    assert_type(await (await add.adelay(1)), int)
    assert_type(await (await fetch.adelay("x")).aresult(10), bytes)
    assert_type(await add.amap([1], [2]), list[RunFuture[int]])
    assert_type(await agather(*await add.amap([1])), list[int])
    assert_type(await agather(add.delay(1), return_exceptions=True), list[int | RunlaneError])
    async with Client() as client:
        assert_type(client, Client)


def with_options() -> None:
    later = add.options(
        delay=30,
        priority=5,
        idempotency_key="k",
        expires=timedelta(hours=1),
        tags=["x"],
        timeout=None,
        retries=0,
        retry_delay=1.5,
        headers={"a": "b"},
        name="n",
    )
    assert_type(later.delay(1, b=2), RunFuture[int])
    assert_type(later.options(countdown=timedelta(seconds=5)).delay(1), RunFuture[int])
    assert_type(add.options(eta=datetime.now(UTC), expires=datetime.now(UTC)).map([1]), list[RunFuture[int]])


def many() -> None:
    assert_type(add.bind(1, b=2), BoundRun[int])
    assert_type(submit_many(add.bind(n) for n in range(3)), list[RunFuture[int]])
    mixed: list[BoundRun[Any]] = [add.bind(1), fetch.options(priority=9).bind("x", retries=0)]
    assert_type(submit_many(mixed, return_exceptions=True), list[RunFuture[Any]])


async def amany() -> None:
    assert_type(await asubmit_many([add.bind(1)]), list[RunFuture[int]])


def by_id(run_id: str, uuid: UUID) -> None:
    assert_type(add.future(run_id), RunFuture[int])
    assert_type(fetch.future(uuid).result(), bytes)
    assert_type(RunFuture.from_id(run_id), RunFuture[Any])


def of_any_task(tasks: Sequence[Task[..., Any]], submitter: Submitter[[int], str]) -> None:
    of_any_task([add, fetch, report], submitter)
    assert_type(submitter.delay(5).result(), str)


def a_future_is_covariant(future: RunFuture[object]) -> None:
    a_future_is_covariant(add.delay(1))
