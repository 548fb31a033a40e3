"""How fast work goes on that nobody waits for."""

from __future__ import annotations

import asyncio
from typing import Final

#: Seconds: a database that is slow for other reasons is not made faster by waiting longer.
LONGEST_PAUSE: Final = 0.05


async def give_way(seconds: float) -> None:
    """After a batch that took so long leave the writer to others for as long: half of them find it free."""
    await asyncio.sleep(min(seconds, LONGEST_PAUSE))
