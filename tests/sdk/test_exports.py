"""The names that users write: none goes, and none comes, without this list saying so."""

from __future__ import annotations

import subprocess
import sys

import pytest

import runlane

NAMES = [
    "Client", "Settings",
    "task", "Task", "Submitter", "TaskOptions", "RunOptions",
    "BoundRun", "submit_many", "asubmit_many",
    "RunFuture", "RunProgress", "StateType", "gather", "agather", "cancel_many", "acancel_many",
    "Serializer", "JsonSerializer",
    "Worker", "CurrentRun", "current_run", "serve",
    "RunlaneError", "ArgumentError", "CancelRefused", "ClientClosed", "ConnectionFailed",
    "PayloadError", "PayloadTooLarge", "ResultError",
    "RunCancelled", "RunCrashed", "RunError", "RunExpired", "RunFailed", "RunNotFound", "RunParked", "RunTimedOut",
    "SettingsError", "SomeRefused", "SubmitRefused", "SubmitTimedOut", "WouldBlock",
]  # fmt: skip


@runlane.task
def function() -> None: ...


#: What users find on what those return.
SUBMITTER = "adelay amap arguments bind delay future key map options plan results"
MEMBERS = {
    "Client": (
        runlane.Client(runlane.Settings()),
        "aclose cancel is_here settings submit submit_each submit_timeout watch"
        # for transport and portal:
        " ended forked holds_runs lost on_frame opened resume_seconds trouble unreachable",
    ),
    "RunFuture": (
        runlane.RunFuture[int]("1"),
        "acancel aresult await_ cancel created done from_id id progress refused result state wait",
    ),
    "Submitter": (function.options(), SUBMITTER),
    "Task": (function, f"{SUBMITTER} fence function is_async may_retry pool timeout"),
    "BoundRun": (function.bind(), "results run"),
}


def test_exactly_these_names_are_exported() -> None:
    names: dict[str, object] = {}
    exec("from runlane import *", names)  # as users would, and each name is looked up
    del names["__builtins__"]
    assert sorted(names) == sorted(NAMES)
    assert all(value is getattr(runlane, name) for name, value in names.items())
    assert len(set(runlane.__all__)) == len(runlane.__all__)
    assert set(NAMES) <= set(dir(runlane))


def test_the_test_kit_exports_exactly_these() -> None:
    names: dict[str, object] = {}
    exec("from runlane.testing import *", names)
    del names["__builtins__"]
    assert sorted(names) == ["AsyncTestBroker", "RunRecord", "SyncTestBroker", "broker", "sync_broker"]


def test_what_is_not_there_is_told_as_always() -> None:
    with pytest.raises(AttributeError, match="module 'runlane' has no attribute 'nothing'"):
        _ = runlane.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", MEMBERS)
def test_these_are_their_members(kind: str) -> None:
    sample, names = MEMBERS[kind]
    assert [name for name in sorted(dir(sample)) if not name.startswith("_")] == sorted(names.split())


def test_a_producer_imports_nothing_of_the_worker() -> None:
    program = """
import sys, runlane
print("runlane.worker" in sys.modules)
runlane.Worker
print("runlane.worker" in sys.modules)
"""
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("error", [name for name in NAMES if isinstance(getattr(runlane, name, None), type)])
def test_every_error_has_one_root(error: str) -> None:
    kind = getattr(runlane, error)
    if issubclass(kind, BaseException):
        assert issubclass(kind, runlane.RunlaneError)
