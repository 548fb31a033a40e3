"""What the flows do: a worker has the code, the broker only their names."""

import asyncio


async def report(day: int, seconds: float = 0.05) -> str:
    await asyncio.sleep(seconds)
    return f"report of day {day}"


FLOWS = {"report": report}
