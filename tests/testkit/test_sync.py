"""`sync_broker`: executing, the clock, what is seen of the runs. The async flavour has the same inside."""

from __future__ import annotations

import tempfile
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runlane import (
    ArgumentError,
    RunExpired,
    RunFailed,
    RunlaneError,
    RunTimedOut,
    StateType,
    current_run,
    gather,
    submit_many,
    task,
)
from runlane.testing import SyncTestBroker, sync_broker

from . import tasks
from .tasks import Parcel, add, broken, deliver, flaky, heavy, log, loose, mul, snoozer

HOUR = timedelta(hours=1)


# --- Executing --------------------------------------------------------------------------------------------


def test_nothing_executes_before_drain(kit: SyncTestBroker) -> None:
    future = add.delay(2, 3)
    assert future.state is StateType.SCHEDULED
    assert [run.state for run in kit.runs()] == [StateType.SCHEDULED]
    assert log == []
    (run,) = kit.drain()
    assert (run.id, run.task_key, run.state, run.state_name, run.attempt, run.result, run.error) == (
        future.id,
        "kit.add",
        StateType.COMPLETED,
        "Completed",
        1,
        5,
        None,
    )
    assert future.result() == 5
    assert kit.drain() == []


@pytest.mark.parametrize("wait", [lambda f: f.result(), lambda f: f.wait(), lambda f: gather(f)])
def test_waiting_for_what_nobody_executes_yet_is_an_error(kit: SyncTestBroker, wait: Callable[[Any], Any]) -> None:
    done, future = add.delay(1, 2), add.options(delay=HOUR).delay(2, 3)
    kit.run_due()
    wait(done)
    with pytest.raises(
        RunlaneError, match=r"of kit.add is not done, and nothing executes runs here until drain\(\)"
    ):
        wait(future)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    kit.drain()
    wait(future)


def test_another_thread_may_wait_until_something_is_drained(kit: SyncTestBroker) -> None:
    future, results = add.delay(2, 3), list[int]()
    thread = threading.Thread(target=lambda: results.append(future.result()))
    thread.start()
    kit.drain()
    thread.join(10)
    assert results == [5]


def test_runs_execute_in_the_order_they_came_in_whatever_the_kind_of_task(kit: SyncTestBroker) -> None:
    for n in range(20):
        add.delay(n)
    for n in range(20):
        mul.delay(n, n)
    ended = kit.drain()
    assert [entry[1] for entry in log if entry[0] == "add"] == list(range(20))
    assert [entry[1] for entry in log if entry[0] == "mul"] == list(range(20))
    assert [(run.task_key.removeprefix("kit."), run.parameters["a"]) for run in ended] == [e[:2] for e in log]


def test_many_at_once_and_their_results(kit: SyncTestBroker) -> None:
    futures = [*add.map(range(50)), *submit_many(mul.bind(n, n) for n in range(50))]
    assert len(kit.drain()) == 100
    assert gather(*futures) == [*(n + 3 for n in range(50)), *(n * n for n in range(50))]


def test_priorities_go_first(kit: SyncTestBroker) -> None:
    for n, priority in enumerate([0, 9, 5, 9]):
        add.options(priority=priority).delay(n)
    assert [run.priority for run in kit.drain()] == [9, 9, 5, 0]
    assert [entry[1] for entry in log] == [1, 3, 2, 0]


def test_an_idempotency_key_makes_one_run(kit: SyncTestBroker) -> None:
    futures = [add.options(idempotency_key="once").delay(1) for _ in range(3)]
    assert [future.created for future in futures] == [True, False, False]
    kit.assert_submitted(add, times=1)
    assert len(kit.drain()) == 1
    assert [future.result() for future in futures] == [4, 4, 4]
    assert kit.runs()[0].idempotency_key == "once"


def test_a_process_task_executes_here(kit: SyncTestBroker) -> None:
    future = heavy.delay(7)
    kit.drain()
    assert (future.result(), log) == (7, [("heavy", 7)])
    assert heavy.pool == "process"


def test_tasks_that_submit_tasks() -> None:
    with sync_broker(tasks.parent, tasks.sync_parent, add) as kit:
        tasks.parent.delay(1)
        tasks.sync_parent.delay(2)
        assert [run.task_key for run in kit.run_due()].count("kit.add") == 2
        assert sorted(log) == [("add", 1, 3), ("add", 2, 3), ("parent", 1)]
        assert [run.parameters for run in kit.drain()] == [{"a": 1, "b": 100}]


def test_a_task_that_waits_for_another_needs_two_slots() -> None:
    with sync_broker(tasks.waiting, add, limit=2) as kit:
        future = tasks.waiting.delay(1)
        kit.drain()
        assert future.result() == 1004


def test_a_drain_that_cannot_end_says_why() -> None:
    with sync_broker(tasks.waiting, add) as kit:
        tasks.waiting.delay(1)
        with pytest.raises(TimeoutError) as caught:
            kit.drain(timeout=0.3)
    assert "within 0.3 s" in str(caught.value)
    assert "kit.waiting(n=1)  Running" in str(caught.value)
    assert "kit.add(a=1, b=3)  Scheduled" in str(caught.value)
    assert "limit=2" in str(caught.value)


def test_what_a_broken_off_drain_has_begun_is_given_back() -> None:
    with sync_broker(tasks.stuck, add) as kit:
        tasks.stuck.delay()
        with pytest.raises(TimeoutError):
            kit.drain(timeout=0.2)
        (run,) = kit.runs()
        assert run.state is StateType.SCHEDULED


def test_all_tasks_are_there_where_none_is_named() -> None:
    @task(key="kit.local")
    def local() -> str:
        return "here"

    with sync_broker() as kit:
        future = local.delay()
        kit.drain()
        assert future.result() == "here"


def test_a_lifespan_gives_resources() -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        log.append("in")
        yield "a connection"
        log.append("out")

    @task(key="kit.resourceful")
    def resourceful() -> str:
        return current_run().resources

    with sync_broker(resourceful, lifespan=lifespan) as kit:
        future = resourceful.delay()
        kit.drain()
        assert future.result() == "a connection"
    assert log == ["in", "out"]


def test_runs_of_other_tasks_stay(kit: SyncTestBroker) -> None:
    tasks.stuck.delay()
    add.delay(1)
    assert [run.task_key for run in kit.drain()] == ["kit.add"]
    assert [run.task_key for run in kit.runs(state="SCHEDULED")] == ["kit.stuck"]


# --- Time -------------------------------------------------------------------------------------------------


def test_retries_and_scheduled_runs_come_in_the_order_of_their_times(kit: SyncTestBroker) -> None:
    start, began = kit.now, time.monotonic()
    future = flaky.delay(3)  # fails at 0 and 1 h, is done at 2 h
    add.options(delay=timedelta(days=30)).delay(4)
    add.options(delay=HOUR / 2).delay(1)
    add.options(eta=start + 1.5 * HOUR).delay(3)
    add.options(countdown=3600).delay(2)
    ended = kit.drain()
    assert log.index(("flaky", 1)) == 0
    assert [entry for entry in log if entry[0] == "flaky"] == [("flaky", 1), ("flaky", 2), ("flaky", 3)]
    assert [run.parameters.get("a") for run in ended] == [1, 2, 3, None, 4]
    assert [run.due - start for run in ended] == [HOUR / 2, HOUR, 1.5 * HOUR, 2 * HOUR, timedelta(days=30)]
    assert future.result() == 3
    assert kit.now == start + timedelta(days=30)
    assert time.monotonic() - began < 5  # of 30 days


def test_a_retry_that_is_due_goes_before_what_is_new(kit: SyncTestBroker) -> None:
    flaky.delay(2)
    kit.run_due()
    flaky.delay(1)
    kit.advance(HOUR)
    kit.run_due()
    assert log == [("flaky", 1), ("flaky", 2), ("flaky", 1)]


def test_run_due_lets_no_time_pass(kit: SyncTestBroker) -> None:
    start = kit.now
    add.options(delay=60).delay(1)
    assert kit.run_due() == []
    kit.advance(59.999)
    assert kit.run_due() == []
    kit.advance(timedelta(milliseconds=1))
    assert [run.result for run in kit.run_due()] == [4]
    assert kit.now == start + timedelta(seconds=60)


def test_delays_count_from_the_brokers_time(kit: SyncTestBroker) -> None:
    kit.advance(timedelta(days=365))
    add.options(delay=60).delay(1)
    assert kit.run_due() == []
    (run,) = kit.runs()
    assert run.due == kit.now + timedelta(seconds=60)
    assert len(kit.drain()) == 1


def test_the_clock_begins_where_it_is_told_to() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    with sync_broker(add, now=start) as kit:
        add.delay(1)
        (run,) = kit.drain()
        assert kit.now == start
        assert run.ended is not None
        assert timedelta(0) <= run.ended - start < timedelta(milliseconds=1)  # no two states have the same time


def test_time_does_not_go_back(kit: SyncTestBroker) -> None:
    with pytest.raises(ArgumentError, match="back"):
        kit.advance(-1)
    with pytest.raises(ArgumentError, match="time zone"):
        sync_broker(now=datetime(2030, 1, 1))  # noqa: DTZ001


def test_what_has_expired_is_not_executed(kit: SyncTestBroker) -> None:
    future = add.options(expires=60).delay(1)
    kit.advance(61)
    (run,) = kit.run_due()
    assert (run.state, run.state_name) == (StateType.CANCELLED, "Expired")
    assert isinstance(run.error, RunExpired)
    with pytest.raises(RunExpired):
        future.result()
    assert log == []


def test_a_snoozed_run_comes_again(kit: SyncTestBroker) -> None:
    start = kit.now
    future = snoozer.delay()
    kit.drain()
    assert future.result() == "awake"
    assert kit.now == start + timedelta(seconds=120)


# --- Failures ---------------------------------------------------------------------------------------------


def test_a_failed_run_shows_what_was_raised(kit: SyncTestBroker) -> None:
    future = broken.delay("x")
    (run,) = kit.drain()
    assert run.state is StateType.FAILED
    assert isinstance(run.exception, KeyError)
    assert isinstance(run.error, RunFailed)
    assert (run.error.type, run.error.message) == ("KeyError", "'x'")
    assert "in broken" in run.error.traceback
    with pytest.raises(RunFailed, match="KeyError"):
        future.result()


def test_raise_errors_raises_the_first_very_exception_when_all_is_done(kit: SyncTestBroker) -> None:
    broken.delay("first")
    broken.delay("second")
    add.delay(1)
    with pytest.raises(KeyError, match="first") as caught:
        kit.drain(raise_errors=True)
    assert "broken" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert [run.state_name for run in kit.runs()] == ["Failed", "Failed", "Completed"]


def test_raise_errors_does_not_mind_what_a_retry_has_put_right(kit: SyncTestBroker) -> None:
    flaky.delay(3)
    (run,) = kit.drain(raise_errors=True)
    assert (run.result, run.failures, run.attempt) == (3, 2, 3)
    flaky.delay(9)
    with pytest.raises(ValueError, match="not yet: 3"):
        kit.drain(raise_errors=True)


def test_raise_errors_of_what_no_task_has_raised() -> None:
    @task(key="kit.slow", timeout=0.05)
    async def slow() -> None:
        await tasks.stuck()

    with sync_broker(slow) as kit:
        slow.delay()
        with pytest.raises(RunTimedOut):
            kit.drain(raise_errors=True)


def test_run_due_raises_too(kit: SyncTestBroker) -> None:
    broken.delay("x")
    with pytest.raises(KeyError):
        kit.run_due(raise_errors=True)


# --- What is seen -----------------------------------------------------------------------------------------


def test_runs_can_be_chosen(kit: SyncTestBroker) -> None:
    add.delay(1)
    mul.delay(2, 3)
    kit.drain()
    add.options(tags=["t"], name="mine", headers={"h": "v"}).delay(5)
    assert [run.parameters["a"] for run in kit.runs(add)] == [1, 5]
    assert [run.parameters["a"] for run in kit.runs("kit.mul")] == [2]
    assert [run.parameters["a"] for run in kit.runs(state="COMPLETED")] == [1, 2]
    (run,) = kit.runs(add.options(priority=3), StateType.SCHEDULED)
    assert (run.tags, run.name, run.headers["h"], run.started, run.ended) == (("t",), "mine", "v", None, None)


def test_parameters_and_results_are_of_their_types(kit: SyncTestBroker) -> None:
    parcel = Parcel("book", date(2024, 2, 29))
    deliver.delay(parcel, "a", "b", note="fragile")
    (run,) = kit.drain()
    assert run.result == parcel
    assert run.parameters == {"parcel": parcel, "stops": ("a", "b"), "notes": {"note": "fragile"}}
    kit.assert_submitted(deliver, parcel)
    kit.assert_not_submitted(deliver, Parcel("book", date(2024, 3, 1)))


def test_assert_submitted_finds(kit: SyncTestBroker) -> None:
    add.delay(2)
    add.delay(2, 3)
    add.delay(b=4, a=2)
    assert len(kit.assert_submitted(add)) == 3
    assert len(kit.assert_submitted(add, a=2, b=3, times=2)) == 2  # a default is as good as an argument
    kit.assert_submitted(add, 2, 4, times=1)
    kit.assert_submitted("kit.add", b=4, times=1)
    kit.assert_submitted(add, a=5, times=0)
    kit.assert_not_submitted(add, a=5)
    kit.assert_not_submitted(mul)
    loose.delay((1, 2))
    kit.assert_submitted(loose, value=(1, 2))
    kit.drain()
    kit.assert_submitted(add, a=2, times=3)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda kit: kit.assert_submitted(add, a=2, b=9),
            """\
kit.add(a=2, b=9) was not submitted, expected at least once
submitted of kit.add, oldest first:
  kit.add(a=2, b=3)  Scheduled
  kit.add(a=2, b=4)  Scheduled""",
        ),
        (
            lambda kit: kit.assert_submitted(add, a=2, times=1),
            """\
kit.add(a=2) was 2 times submitted, expected once
submitted of kit.add, oldest first:
  kit.add(a=2, b=3)  Scheduled
  kit.add(a=2, b=4)  Scheduled""",
        ),
        (
            lambda kit: kit.assert_not_submitted(add, b=4),
            """\
kit.add(b=4) was once submitted, expected never
submitted of kit.add, oldest first:
  kit.add(a=2, b=3)  Scheduled
  kit.add(a=2, b=4)  Scheduled""",
        ),
        (
            lambda kit: kit.assert_submitted(mul, times=3),
            """\
kit.mul(…) was not submitted, expected 3 times
nothing of kit.mul was; submitted were: kit.add x2""",
        ),
    ],
)
def test_assertions_say_what_was_submitted_instead(kit: SyncTestBroker, check: Any, message: str) -> None:
    add.delay(2)
    add.delay(2, 4)
    with pytest.raises(AssertionError) as caught:
        check(kit)
    assert str(caught.value) == message


def test_assertions_about_nothing(kit: SyncTestBroker) -> None:
    with pytest.raises(AssertionError, match=r"add\(…\) was not submitted.*\nnothing was submitted at all"):
        kit.assert_submitted(add)


def test_long_lists_and_long_values_are_cut(kit: SyncTestBroker) -> None:
    add.map(range(25))
    loose.delay("x" * 10_000)
    with pytest.raises(AssertionError, match="… and 15 more"):
        kit.assert_submitted(add, a=99)
    with pytest.raises(AssertionError) as caught:
        kit.assert_submitted(loose, value=1)
    assert max(map(len, str(caught.value).splitlines())) < 200


def test_an_argument_that_there_is_not_is_no_failed_assertion(kit: SyncTestBroker) -> None:
    with pytest.raises(TypeError, match="'c'"):
        kit.assert_submitted(add, c=1)
    with pytest.raises(TypeError, match="key"):
        kit.assert_submitted("kit.unknown", 1)


# --- Without executing; opening and closing ---------------------------------------------------------------


def test_a_broker_that_only_records() -> None:
    with sync_broker(execute=False) as kit:
        future = add.delay(2, 3)
        kit.assert_submitted(add, a=2, b=3, times=1)
        assert future.state is StateType.SCHEDULED
        for execute in (kit.drain, kit.run_due):
            with pytest.raises(RunlaneError, match="execute=False"):
                execute()
    assert log == []


def test_outside_of_its_block_it_is_closed() -> None:
    kit = sync_broker(add)
    with pytest.raises(RunlaneError, match="closed"):
        kit.drain()
    with kit:
        future = add.delay(1)
        with pytest.raises(RunlaneError, match="already"), kit:
            pass
    with pytest.raises(RunlaneError, match="closed"):
        kit.runs()
    with pytest.raises(RunlaneError, match="has ended"):
        future.result(5)


def test_one_after_the_other_and_within_each_other() -> None:
    with sync_broker(add) as outer:
        with sync_broker(add) as inner:
            add.delay(1)
            inner.assert_submitted(add, times=1)
            outer.assert_not_submitted(add)
        add.delay(2)
        outer.assert_submitted(add, a=2, times=1)
    with sync_broker(add) as kit:
        kit.assert_not_submitted(add)


def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads = {thread.name for thread in threading.enumerate()}
    with sync_broker(add, mul) as kit:
        assert len(list(tmp_path.glob("runlane-*"))) == 1
        add.delay(1)
        mul.delay(1, 1)
        kit.drain()
    assert list(tmp_path.iterdir()) == []
    left = {thread.name for thread in threading.enumerate()} - threads
    assert left <= {"runlane"}  # the SDK's own, which is the process's


def test_only_tasks_are_taken() -> None:
    with pytest.raises(ArgumentError, match="@task"):
        sync_broker(print)  # type: ignore[arg-type]
    other = task(key="kit.add")(lambda: None)
    with pytest.raises(ArgumentError, match="two tasks"):
        sync_broker(add, other)


def test_a_thousand_runs_take_few_commits(kit: SyncTestBroker) -> None:
    """Speed, as a count: a run takes one commit, for its report, the next one's lease, and its start."""
    add.map(range(1000))
    engine = kit._engine
    assert engine is not None
    broker = engine._broker
    assert broker is not None
    before = broker.store._writer._executor._number  # type: ignore[attr-defined]
    assert len(kit.drain()) == 1000
    commits = broker.store._writer._executor._number - before  # type: ignore[attr-defined]
    assert commits <= 2100
    assert log == [("add", n, 3) for n in range(1000)]
