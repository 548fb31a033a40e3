"""The pytest plugin, in a pytest of its own; and what it costs those who do not use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]


def test_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import pytest
        from runlane import task

        @task
        def double(n: int) -> int:
            return 2 * n

        @task
        async def fails() -> None:
            raise ValueError("on purpose")

        def test_sync(runlane_broker):
            future = double.delay(4)
            runlane_broker.drain()
            assert future.result() == 8

        def test_async(runlane_broker):
            async def main():
                future = await double.adelay(5)
                runlane_broker.drain()
                assert await future == 10
            asyncio.run(main())

        def test_each_has_its_own(runlane_broker):
            runlane_broker.assert_not_submitted(double)

        def test_shows_what_was_raised(runlane_broker):
            fails.delay()
            runlane_broker.drain(raise_errors=True)

        class TestSome:
            @pytest.fixture
            def runlane_tasks(self):
                return [double]

            def test_only_these_execute(self, runlane_broker):
                double.delay(1)
                fails.delay()
                assert len(runlane_broker.drain()) == 1

            def test_says_what_was_submitted(self, runlane_broker):
                double.delay(1)
                runlane_broker.assert_submitted(double, n=2)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*ValueError: on purpose",
            "*AssertionError: *double(n=2) was not submitted, expected at least once",
            "*double(n=1)  Scheduled*",
        ]
    )


def test_loading_the_plugin_loads_nothing_of_runlane() -> None:
    program = """if True:
        import sys, pytest
        before = set(sys.modules)
        import _runlane_pytestplugin
        print(*sorted(set(sys.modules) - before))
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["_runlane_pytestplugin"]


def test_the_kit_needs_the_broker_only_when_one_is_opened() -> None:
    program = """if True:
        import sys
        sys.modules["runlane_broker"] = None  # as where the extra is not installed
        from runlane import RunlaneError
        from runlane.testing import sync_broker
        assert "pytest" not in sys.modules
        try:
            with sync_broker():
                pass
        except RunlaneError as exc:
            print(exc)
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "install runlane[broker]" in run.stdout
