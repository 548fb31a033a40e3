"""The decorator, keys, and what a task knows of itself."""

from __future__ import annotations

import functools
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from runlane import ArgumentError, Submitter, Task, task
from runlane.keys import default_key
from runlane.tasks import AsyncTask
from runlane.testing import sync_broker


@task
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@task(key="named", timeout=9, fence=True)
async def named() -> str:
    return "here"


@task(pool="process")
def crunch() -> None: ...


def test_tasks_can_be_called_in_place() -> None:
    assert add(2, b=3) == 5
    coroutine = named()
    with pytest.raises(StopIteration, match="here"):
        coroutine.send(None)
    assert (add.__doc__, add.__name__) == ("Add.", "add")


def test_tasks_say_how_they_are_executed() -> None:
    assert (add.is_async, add.pool, add.fence, add.timeout) == (False, "thread", False, None)
    assert (named.is_async, named.pool, named.fence, named.timeout) == (True, "async", True, 9.0)
    assert crunch.pool == "process"
    assert repr(add) == f"<Task {__name__}.add>"


def test_options_make_no_second_task() -> None:
    """A module may hold them, and `runlane worker` finds the task once."""
    urgent = add.options(priority=9)
    assert isinstance(urgent, Submitter)
    assert not isinstance(urgent, Task)
    assert urgent.key == add.key


def test_attributes_of_the_function_do_not_get_in_the_way() -> None:
    def function() -> None: ...

    function.key = "not this"  # type: ignore[attr-defined]
    function.color = "red"  # type: ignore[attr-defined]
    made: Any = task(key="this")(function)
    assert (made.key, made.color) == ("this", "red")


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_what_yields_is_no_task(kind: str) -> None:
    def generator() -> Any:
        yield 1

    async def async_generator() -> Any:
        yield 1

    with pytest.raises(ArgumentError, match="yields: a task returns its result"):
        task(generator if kind == "generator" else async_generator)


def test_nor_is_a_task() -> None:
    again: Any = add
    with pytest.raises(ArgumentError, match="is a task already"):
        task(again)


def test_nor_is_what_has_no_parameters_to_name() -> None:
    with pytest.raises(ArgumentError, match="<class 'int'> cannot be a task: no signature found"):
        task(key="int")(int)


def test_an_object_may_be_called_asynchronously() -> None:
    class Mailer:
        async def __call__(self, address: str) -> None: ...

    mail: Any = task(key="mail")(Mailer())
    assert (type(mail), mail.is_async, mail.pool) == (AsyncTask, True, "async")


def test_rules_for_exceptions() -> None:
    @task(retry_on=(OSError, ValueError), no_retry_on=FileNotFoundError)
    def picky() -> None: ...

    errors = [OSError(), UnicodeError(), FileNotFoundError(), KeyError()]
    assert [picky.may_retry(error) for error in errors] == [True, True, False, False]
    assert all(add.may_retry(error) for error in errors)


def test_default_keys() -> None:
    def inner() -> None: ...

    assert default_key(add.function) == f"{__name__}.add"
    assert default_key(inner) == f"{__name__}.test_default_keys.<locals>.inner"
    assert task(lambda: None).key.endswith("<lambda>")
    with pytest.raises(ArgumentError, match="has no name: give its task one"):
        task(functools.partial(inner))
    assert task(key="p")(functools.partial(inner)).key == "p"


def test_what_no_worker_could_find_is_not_submitted() -> None:
    @task
    def inner(a: int) -> int:
        return a

    assert inner(2) == 2
    for nowhere in (inner, inner.options(priority=1), task(lambda a: a)):
        with pytest.raises(
            ArgumentError, match=r"where no worker can find it: move it to the top .*@task\(key=…\)"
        ):
            nowhere.bind(2)
    with sync_broker(inner) as broker:
        future = inner.delay(2)
        broker.drain()
        assert future.result() == 2


def test_a_script_and_its_worker_agree_on_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "app.py"
    script.write_text("from runlane import task\n@task\ndef f(): ...\nkey = f.key\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    assert runpy.run_path(str(script), run_name="__main__")["key"] == "app.f"
    try:
        import app  # pyright: ignore[reportMissingImports]

        assert app.key == "app.f"
    finally:
        sys.modules.pop("app", None)
