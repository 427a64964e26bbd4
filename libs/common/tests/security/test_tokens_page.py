"""The code that `docs/tokens.md` gives to other teams runs unchanged."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.testing.api_client import api_client
from common.testing.token_issuer import TokenIssuer

PAGE = Path(__file__).parents[4] / "docs" / "tokens.md"


@pytest.fixture
async def issuer() -> AsyncIterator[TokenIssuer]:
    """Auth as a verifier uses it: its keys at a real address."""
    made: list[TokenIssuer] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /.well-known/jwks.json ")
        body = json.dumps(made[0].jwks).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        made.append(TokenIssuer(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        yield made[0]


async def test_a_third_service_takes_our_tokens_in_ten_lines(issuer: TokenIssuer) -> None:
    imports, service = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in service.splitlines() if line]) <= 10
    module: dict[str, Any] = {"GATEWAY": issuer.issuer}
    exec(imports + service, module)  # noqa: S102 - the page's code is what is tested
    mine: dict[str, Any] = {"aud": ["https://stock.example"]}
    async with api_client(module["app"]) as client:

        async def status(**claims: Any) -> int:
            return (await client.get("/stock", headers=issuer.bearer(**claims))).status_code

        assert (await client.get("/stock")).status_code == 401
        assert await status(**mine) == 200
        assert await status(**mine, scope="account") == 403
        assert await status(audience=("orders",)) == 401
        refused = await client.get("/stock", headers=TokenIssuer(issuer.issuer).bearer(**mine))
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert refused.headers["Content-Type"] == "application/problem+json"
