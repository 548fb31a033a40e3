"""What the system keeps for a peer, who may have gone by then."""

from __future__ import annotations

import asyncio

import pytest

from runlane_broker.serving.buffers import SEND_BUFFER, keep

uvloop = pytest.importorskip("uvloop")


def test_nothing_is_kept_for_a_peer_that_has_gone_and_nothing_fails() -> None:
    """A run may be committed when its producer is cut already: that it was of use must not fail the callback."""

    async def main() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.transport.abort()
        while writer.transport.get_extra_info("socket").fileno() >= 0:
            await asyncio.sleep(0)
        server.close()
        keep(writer.transport, SEND_BUFFER)

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
