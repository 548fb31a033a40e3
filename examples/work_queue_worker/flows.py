"""What the flows do: a worker has the code, the broker only their names."""

import asyncio


async def report(day: int) -> str:
    await asyncio.sleep(0.05)
    return f"report of day {day}"


FLOWS = {"report": report}
