"""The client against a broker and a worker in processes of their own."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from runlane import (
    Client,
    RunExpired,
    RunFailed,
    RunFuture,
    RunNotFound,
    RunTimedOut,
    Settings,
    StateType,
    SubmitRefused,
    agather,
    gather,
    task,
)
from runlane.protocol.ids import uuid7

from .fake_broker import run
from .work import add, again, crunch, fail, later, picky, secret, sleep, steps

pytestmark = pytest.mark.process

RUNLANE = (sys.executable, "-m", "runlane")
SERVED = "tests.sdk.work:add,later,fail,sleep,steps,again,secret,picky,crunch"


@contextmanager
def process(log: Path, says: str, *arguments: str, **environment: str) -> Iterator[str]:
    """Run a command of ours until the block ends; yield what its log says, once it does."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RUNLANE_")}
    with log.open("wb") as output:
        started = subprocess.Popen(
            (*RUNLANE, *arguments), env={**clean, **environment}, stdout=output, stderr=output
        )
    try:
        while (found := re.search(says, log.read_text())) is None:
            assert started.poll() is None, log.read_text()
            time.sleep(0.02)
        yield found[1]
    finally:
        started.terminate()
        started.wait(30)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Start a broker and a worker, once."""
    folder = tmp_path_factory.mktemp("broker")
    database = f"sqlite:///{folder / 'runlane.db'}"
    serve = ("serve", "--port", "0", "--db", database)
    with process(folder / "broker.log", r"listening on (http://\S+?),", *serve) as url:
        work = ("worker", SERVED, "--limit", "100")
        with process(folder / "worker.log", r"(subscribed as)", *work, RUNLANE_URL=url):
            yield Settings(url=url)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.mark.usefixtures("client")
def test_there_and_back() -> None:
    now = datetime.now(UTC)
    future = later.delay(now, timedelta(hours=1), Decimal("1.5"), Decimal(2), where=Path("a/b"))
    assert future.result(20) == (now + timedelta(hours=1), Decimal("3.5"), Path("a/b"))


def test_a_thousand_futures_awaited_at_once(settings: Settings) -> None:
    """None is missed: those that have ended before they are watched, and those that end meanwhile."""

    async def main() -> None:
        async with Client(settings):
            futures = await add.amap(range(1000), [5] * 1000)
            assert await asyncio.gather(*futures) == [n + 5 for n in range(1000)]
            assert await agather(*(add.future(future.id) for future in futures)) == [n + 5 for n in range(1000)]

    run(main())


@pytest.mark.usefixtures("client")
def test_several_threads_submit_and_wait() -> None:
    sums: list[int] = []

    def work(n: int) -> None:
        sums.append(sum(gather(*[add.delay(n, k) for k in range(10)], timeout=20)))

    threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums) == [10 * n + 45 for n in range(8)]


@pytest.mark.usefixtures("client")
def test_runs_end_in_many_ways() -> None:
    with pytest.raises(RunFailed, match="ValueError: no good") as failed:
        fail.delay("no good").result(20)
    assert failed.value.type == "ValueError"
    assert "raise ValueError(text)" in failed.value.traceback
    with pytest.raises(RunTimedOut, match="TimedOut"):
        sleep.options(timeout=0.05).delay(20).result(20)
    with pytest.raises(RunExpired):
        add.options(expires=datetime.now(UTC) - timedelta(seconds=1)).delay(1, 2).result(20)
    with pytest.raises(RunNotFound):
        RunFuture.from_id(uuid7()).result(20)
    assert again.delay().result(20) == 3
    assert sleep.delay(0).wait(20) is StateType.COMPLETED
    assert fail.delay("x").wait(20) is StateType.FAILED


@pytest.mark.usefixtures("client")
def test_exceptions_that_are_not_worth_a_retry_are_not_retried() -> None:
    with pytest.raises(RunFailed, match="FileNotFoundError: 2"):
        picky.delay().result(20)


@pytest.mark.usefixtures("client")
def test_other_pools_give_results_too() -> None:
    assert crunch.delay(1000).result(20) == 499500


@pytest.mark.usefixtures("client")
def test_a_tasks_own_form_goes_there_and_back() -> None:
    assert secret.delay(Decimal("1.50")).result(20) == Decimal("3.00")

    @task(key=secret.key)
    def without_the_serializer(amount: Decimal) -> Any: ...

    with pytest.raises(RunFailed, match="are application/json, and this task takes application/x-backwards"):
        without_the_serializer.delay(Decimal(1)).result(20)


@pytest.mark.usefixtures("client")
def test_the_future_of_a_run_that_was_there_already_resolves_too() -> None:
    key = uuid7()
    once = add.options(idempotency_key=key)
    first, second = once.delay(1, 2), once.delay(1, 2)
    assert (first.created, second.created) == (True, False)
    assert first.id == second.id
    assert gather(first, second, timeout=20) == [3, 3]
    assert once.delay(1, 2).result(20) == 3  # long after its end, too
    with pytest.raises(SubmitRefused, match="idempotency_conflict"):
        once.delay(1, 3)


@pytest.mark.usefixtures("client")
def test_a_delayed_run_starts_when_it_is_due() -> None:
    begin = time.monotonic()
    future = add.options(delay=0.3).delay(1, 2)
    with pytest.raises(TimeoutError):
        future.result(0.05)
    assert future.result(20) == 3
    assert time.monotonic() - begin >= 0.3


@pytest.mark.usefixtures("client")
def test_progress_is_pushed() -> None:
    future = steps.delay(20, 0.05)
    seen: set[float] = set()
    deadline = time.monotonic() + 20
    while not future.done():
        assert time.monotonic() < deadline
        if future.progress is not None:
            assert future.progress.total == 20
            seen.add(future.progress.current)
        time.sleep(0.01)
    assert len(seen) > 2
    assert future.result() == 20


def test_ten_thousand_need_little_time_and_memory(settings: Settings) -> None:
    """In a process of its own: the figures are for the log, the bounds leave room for a busy machine."""
    program = """
import resource, time
from tests.sdk.work import nobody
nobody.delay(0)
begin = time.perf_counter()
futures = nobody.map(range(10_000), ("x" * 180 for _ in range(10_000)))
seconds = time.perf_counter() - begin
assert len({future.id for future in futures}) == 10_000
assert all(future.created for future in futures)
# Not `ru_maxrss`, which a new process has from the one that started it.
status = open("/proc/self/status").read()
print(seconds, int(status.partition("VmHWM:")[2].split()[0]) / 1024)
"""
    done = subprocess.run(
        (sys.executable, "-c", program),
        env={**os.environ, "RUNLANE_URL": settings.url},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stderr == ""
    seconds, mebibytes = map(float, done.stdout.split())
    print(f"map of 10,000: {seconds:.2f} s, {mebibytes:.0f} MiB")
    assert mebibytes < 100
    assert seconds < 8
