"""A broker for tests: the production one, in this process, without a network, with a clock moved by hand.

    async with broker(add) as b:                    with sync_broker(add) as b:
        future = await add.adelay(2, 3)                 future = add.delay(2, 3)
        await b.drain()                                 b.drain()
        assert await future == 5                        assert future.result() == 5

Needs `runlane[broker]`. See docs/testing.md.
"""

from .kit import AsyncTestBroker, SyncTestBroker, broker, sync_broker
from .records import RunRecord

__all__ = ["AsyncTestBroker", "RunRecord", "SyncTestBroker", "broker", "sync_broker"]
