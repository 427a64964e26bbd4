"""Connections to a broker that misbehaves."""

import asyncio

import pytest

from common.messaging import broker


async def test_a_proxy_that_accepts_and_closes_connections_counts_as_an_unavailable_broker() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    proxy = await asyncio.start_server(close, "127.0.0.1", 0)
    async with proxy:
        port = proxy.sockets[0].getsockname()[1]
        with pytest.raises(broker.BROKER_ERRORS):
            async with broker.connect(f"amqp://guest:guest@127.0.0.1:{port}/", "test"):
                pytest.fail("connected to nothing")
