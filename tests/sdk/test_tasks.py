"""The decorator, keys, and what becomes of a run's end."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import runlane
from runlane import ArgumentError, Task, task
from runlane.futures import RunFuture, error_of
from runlane.protocol.messages import RunFinished, RunState
from runlane.protocol.states import StateType
from runlane.tasks import default_key


@task
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@task(key="named", retries=3, retry_delay=[1, 2], retry_jitter=0.5, timeout=9, priority=7, tags=["x"])
async def named() -> str:
    return "here"


async def test_nothing() -> None: ...


del test_nothing


def test_tasks_can_be_called_in_place() -> None:
    assert add(2, b=3) == 5
    coroutine = named()
    with pytest.raises(StopIteration, match="here"):
        coroutine.send(None)
    assert (add.__doc__, add.__name__, add.is_async, named.is_async) == ("Add.", "add", False, True)
    assert repr(add) == f"<Task {__name__}.add>"


def test_options_travel_with_each_run() -> None:
    run = named._new_run((), {})
    other = named._new_run((), {})
    assert run.id != other.id
    assert msgspec.structs.replace(run, id="", parameters=b"") == msgspec.structs.replace(
        other, id="", parameters=b""
    )
    assert (run.retries, run.retry_delay, run.retry_jitter) == (3, (1, 2), 0.5)
    assert (run.timeout, run.priority, run.tags, run.task_key) == (9, 7, ("x",), "named")


@pytest.mark.parametrize(
    "options",
    [{"priority": 10}, {"retries": -1}, {"timeout": 0}, {"key": "a b"}, {"key": "x" * 201}, {"tags": [""]}],
)
def test_options_out_of_range_are_refused_at_once(options: Any) -> None:
    with pytest.raises(ArgumentError):
        task(**options)(lambda: None)


def test_default_keys() -> None:
    def inner() -> None: ...

    assert default_key(add.function) == f"{__name__}.add"
    assert default_key(inner) == f"{__name__}.test_default_keys.<locals>.inner"
    assert task(lambda: None).key.endswith("<lambda>")


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


@pytest.mark.parametrize(
    ("type_", "name", "error"),
    [
        ("FAILED", "Failed", runlane.RunFailed),
        ("FAILED", "TimedOut", runlane.RunTimedOut),
        ("CANCELLED", "Cancelled", runlane.RunCancelled),
        ("CANCELLED", "Expired", runlane.RunExpired),
        ("CRASHED", "Crashed", runlane.RunCrashed),
        ("CRASHED", "Parked", runlane.RunParked),
        ("SCHEDULED", "Odd", runlane.RunError),
    ],
)
def test_every_end_has_its_error(type_: str, name: str, error: type[runlane.RunError]) -> None:
    caught = error_of(RunFinished(id="1", state=RunState(type=StateType(type_), name=name, message="why")))
    assert type(caught) is error
    assert "why" in str(caught)
    assert caught.run_id == "1"


def test_a_result_of_another_type_is_told() -> None:
    state = RunState(type=StateType.COMPLETED, name="Completed")
    future = RunFuture[int]("1", None, add._result_type)  # type: ignore[arg-type]
    assert future._value_of(RunFinished(id="1", state=state, result=msgspec.Raw(b"5"))) == 5
    assert future._value_of(RunFinished(id="1", state=state)) is None
    with pytest.raises(runlane.ResultError, match="Expected `int`"):
        future._value_of(RunFinished(id="1", state=state, result=msgspec.Raw(b'"x"')))


def test_all_that_is_exported_is_there() -> None:
    assert sorted(runlane.__all__) == sorted(set(runlane.__all__))
    assert all(hasattr(runlane, name) for name in runlane.__all__)
    assert isinstance(add, Task)
