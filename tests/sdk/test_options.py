"""What can be said of tasks and runs: what it becomes on the wire, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from runlane import ArgumentError, Submitter, task
from runlane.protocol.messages import NewRun

CEST = timezone(timedelta(hours=2))


@task(key="add", retries=3, retry_delay=[1, timedelta(minutes=1)], timeout=timedelta(seconds=9), tags=["x"])
def add(a: int, b: int) -> int:
    return a + b


def run_of(submitter: Submitter[[int, int], int]) -> NewRun:
    return submitter.bind(1, 2).run


def seconds_until(when: datetime | None) -> float:
    assert when is not None
    return (when - datetime.now(UTC)).total_seconds()


def test_a_run_has_its_tasks_options() -> None:
    run = run_of(add)
    assert (run.task_key, bytes(run.parameters)) == ("add", b'{"a":1,"b":2}')
    assert (run.retries, run.retry_delay, run.timeout, run.tags) == (3, (1.0, 60.0), 9.0, ("x",))
    assert (run.scheduled_time, run.expires, run.headers) == (None, None, {})
    assert run.id != run_of(add).id


def test_options_replace_the_tasks_and_leave_it_alone() -> None:
    urgent = add.options(
        retries=0, retry_delay=2, retry_jitter=0.5, timeout=None, priority=9, tags=("y", "z"),
        headers={"traceparent": "00-1"}, name="one of many", idempotency_key="k",
    )  # fmt: skip
    run = run_of(urgent)
    assert (run.retries, run.retry_delay, run.retry_jitter, run.timeout) == (0, 2.0, 0.5, None)
    assert (run.priority, run.tags, run.headers) == (9, ("y", "z"), {"traceparent": "00-1"})
    assert (run.name, run.idempotency_key) == ("one of many", "k")
    assert run_of(urgent.options(priority=1)).tags == ("y", "z")
    assert run_of(add).priority == 0
    assert repr(urgent) == "<Submitter of add>"


@pytest.mark.parametrize("name", ["delay", "countdown"])
@pytest.mark.parametrize("value", [30, 30.0, timedelta(seconds=30)])
def test_a_delay_counts_from_each_submission(name: str, value: Any) -> None:
    later = add.options(**{name: value})
    assert 29 < seconds_until(run_of(later).scheduled_time) <= 30
    first, second = run_of(later).scheduled_time, run_of(later).scheduled_time
    assert first is not None
    assert second is not None
    assert first < second


def test_an_eta_is_a_moment_wherever_one_is() -> None:
    run = run_of(add.options(eta=datetime(2030, 1, 1, 12, tzinfo=CEST)))
    assert run.scheduled_time == datetime(2030, 1, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("value", [30, timedelta(seconds=30)])
def test_expiry_counts_from_each_submission_too(value: Any) -> None:
    assert 29 < seconds_until(run_of(add.options(expires=value)).expires) <= 30
    assert run_of(add.options(expires=value).options(expires=None)).expires is None


def test_expiry_may_be_a_moment() -> None:
    assert run_of(add.options(expires=datetime(2030, 1, 1, tzinfo=UTC))).expires == datetime(
        2030, 1, 1, tzinfo=UTC
    )


def test_the_last_word_on_the_start_counts() -> None:
    eta = datetime(2030, 1, 1, tzinfo=UTC)
    assert run_of(add.options(delay=5).options(eta=eta)).scheduled_time == eta
    assert seconds_until(run_of(add.options(eta=eta).options(delay=5)).scheduled_time) <= 5
    assert run_of(add.options(eta=eta).options(delay=None)).scheduled_time == eta


def test_a_task_can_expire_by_itself() -> None:
    @task(key="short", expires=60, headers={"a": "b"})
    def short() -> None: ...

    run = short.bind().run
    assert 59 < seconds_until(run.expires) <= 60
    assert run.headers == {"a": "b"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delay": -1}, "delay: -1 is not between 0 and 315360000 seconds"),
        ({"countdown": float("nan")}, "countdown: nan is not between"),
        ({"delay": float("inf")}, "delay: inf"),
        ({"delay": timedelta(days=4000)}, "delay: 4000 days"),
        ({"delay": True}, "delay: seconds or a timedelta, not bool"),
        ({"delay": "30"}, "delay: seconds or a timedelta, not str"),
        ({"delay": 1, "countdown": 1}, "delay and countdown say the same thing"),
        ({"delay": 1, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, "delay and eta say the same"),
        ({"eta": datetime(2030, 1, 1)}, "eta: 2030-01-01 00:00:00 has no time zone"),  # noqa: DTZ001
        ({"eta": 5}, "eta: a datetime, not int"),
        ({"expires": datetime(2030, 1, 1)}, "expires: 2030-01-01 00:00:00 has no time zone"),  # noqa: DTZ001
        ({"expires": 0}, "expires: more than no time"),
        ({"priority": 10}, "priority: Expected `int` <= 9"),
        ({"priority": "high"}, "priority: Expected `int`, got `str`"),
        ({"priority": object()}, "priority: "),
        ({"retries": -1}, "retries: "),
        ({"retries": 1.5}, "retries: "),
        ({"retry_delay": "soon"}, "retry_delay: seconds or a timedelta, not str"),
        ({"retry_delay": [1, -1]}, "retry_delay: -1 is not between"),
        ({"retry_jitter": 11}, "retry_jitter: "),
        ({"timeout": 0}, "timeout: "),
        ({"tags": "abc"}, "tags: a list of texts, not a text"),
        ({"tags": [""]}, "tags"),
        ({"tags": ["x"] * 33}, "tags: "),
        ({"idempotency_key": ""}, "idempotency_key: "),
        ({"name": "x" * 201}, "name: "),
        ({"headers": {"a": 1}}, "headers"),
        ({"headers": {"content-type": "x"}}, "'content-type' is the serializer's"),
        ({"tags": None}, "tags: a list of texts, not None"),
        ({"tags": ["\ud800"]}, "tags: "),
        ({"headers": None}, "headers: texts by name, not NoneType"),
        ({"headers": [("a", "b")]}, "headers: texts by name, not list"),
        ({"eta": datetime(1, 1, 1, tzinfo=CEST)}, "eta: 0001-01-01 00:00:00.02:00 is not between the years"),
        ({"max_retries": 3}, "there is no option 'max_retries'; there are countdown, delay, eta"),
        ({"key": "x"}, "there is no option 'key'"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(options: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        add.options(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delay": 1}, "there is no option 'delay'; there are expires, fence, headers, key"),
        ({"name": "add"}, "there is no option 'name'"),
        ({"key": "a b"}, "key: "),
        ({"key": "x" * 201}, "key: "),
        ({"key": ""}, "key: "),
        ({"key": "\ud800"}, "key: "),
        ({"serializer": "pickle"}, "serializer: 'pickle' is none: it needs content_type, dumps, loads"),
        ({"pool": "process"}, "pool: 'process' cannot execute a coroutine function"),
        ({"pool": "thread"}, "pool: 'thread' cannot execute a coroutine function"),
        ({"pool": "gpu"}, "pool: 'gpu'"),
        ({"retry_on": ["x"]}, "retry_on: an exception class"),
        ({"no_retry_on": (int,)}, "no_retry_on: an exception class"),
        ({"priority": 10}, "priority: "),
    ],
)
def test_so_is_what_a_task_cannot_have(options: Any, says: str) -> None:
    async def function() -> None: ...

    with pytest.raises(ArgumentError, match=says):
        task(**options)(function)


def test_what_would_never_run_is_not_submitted() -> None:
    with pytest.raises(ArgumentError, match="expires: the run would expire before it may start"):
        add.options(delay=60, expires=30).bind(1, 2)
    with pytest.raises(ArgumentError, match="would expire"):
        add.options(delay=60, expires=datetime.now(UTC)).bind(1, 2)
    add.options(delay=60, expires=61).bind(1, 2)
