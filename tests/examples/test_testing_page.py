"""The tests on the page about testing pass, under pytest as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .test_guide import DOCS, blocks

#: What the page takes for granted: a task that is helped by a retry, and one that other code submits.
APP = """
from runlane import current_run, task

@task
def store(url: str, page: str) -> None: ...

@task(retries=1, retry_delay=3600)
def fetch(url: str) -> int:
    if current_run().attempt == 1:
        raise ConnectionError("not there yet")
    store.delay(url, "the page")
    return 200

confirmed: list[int] = []

@task
def confirm(order: int) -> None:
    confirmed.append(order)

def place_order(number: int) -> None:
    confirm.delay(order=number)
"""
#: A plugin for async tests, as small as can be.
CONFTEST = """
import asyncio, inspect

def pytest_pyfunc_call(pyfuncitem):
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        asyncio.run(pyfuncitem.obj())
        return True
"""


@pytest.mark.process
def test_the_tests_on_the_page_pass(tmp_path: Path) -> None:
    page = blocks(DOCS / "testing.md")
    (tmp_path / "app.py").write_text(APP, "utf-8")
    (tmp_path / "conftest.py").write_text(CONFTEST, "utf-8")
    for block in page:
        (tmp_path / f"test_line_{block.line}.py").write_text(
            f"import pytest\nfrom app import *\n{block.code}", "utf-8"
        )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RUNLANE_", "PYTEST_"))
    }
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(tmp_path))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    tests = sum(len(re.findall(r"^(?:async )?def test_", block.code, re.MULTILINE)) for block in page)
    assert tests >= len(page)
    assert f"{tests} passed" in done.stdout
