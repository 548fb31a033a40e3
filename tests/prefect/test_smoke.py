"""Prefect's real client and worker, there and back: what `make test` runs where the packages are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import run

from .clients import VERSIONS, town

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


@pytest.mark.parametrize("version", VERSIONS)
def test_there_and_back(tmp_path: Path, version: str) -> None:
    async def main() -> None:
        async with town(tmp_path, version) as here:
            worker = await here.worker()
            assert await here.calls(("add", 1, 2), ("add_async", 3, 4)) == [["returned", 3], ["returned", 7]]
            worker.terminate()
            await worker.wait()

    run(main())
