"""A worker of Prefect's, for all tasks of `work` or those that its arguments name. LIMIT is how many at once."""

from __future__ import annotations

import asyncio
import os
import sys

import work

import prefect


async def main() -> None:
    names = sys.argv[1:]
    tasks = [getattr(work, name) for name in names] if names else list(work.TASKS)
    limit = int(os.environ.get("LIMIT", "10"))
    if prefect.__version__.startswith("2."):
        from prefect.task_server import TaskServer

        await TaskServer(*tasks).start()
    else:
        from prefect.task_worker import aserve

        await aserve(*tasks, limit=limit)


asyncio.run(main())
