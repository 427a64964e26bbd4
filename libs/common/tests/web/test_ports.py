from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Request
from starlette.types import ASGIApp

from common.runtime.health import Health
from common.testing.api_client import api_client
from common.web import ApiRouter, by_port, create_api

public, internal = ApiRouter(), ApiRouter(prefix="/internal")


@public.get("/orders")
async def list_orders(request: Request) -> str:
    return str(request.state.name)


@internal.post("/verify")
async def verify(request: Request) -> str:
    return str(request.state.name)


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[Mapping[str, Any]]:
    yield {"name": "shared"}


@pytest.fixture
def app(settings: Any) -> ASGIApp:
    health = Health()
    return by_port(
        create_api(settings, title="Shop", routers=[public], health=health, lifespan=lifespan),
        create_api(settings, title="Shop, internal", routers=[internal], health=health),
        8001,
    )


async def test_each_port_has_its_own_paths_and_both_share_one_state(app: ASGIApp) -> None:
    async with api_client(app, base_url="http://shop.invalid:8000") as http:
        assert (await http.get("/orders")).json() == "shared"
        assert (await http.post("/internal/verify")).status_code == 404
        assert (await http.get("/internal/verify")).status_code == 404
    async with api_client(app, base_url="http://shop.invalid:8001") as http:
        assert (await http.post("/internal/verify")).json() == "shared"
        assert (await http.get("/orders")).status_code == 404


async def test_the_receiving_port_decides_and_not_the_host_header(app: ASGIApp) -> None:
    async with api_client(app, base_url="http://shop.invalid:8000") as http:
        answer = await http.post("/internal/verify", headers={"Host": "shop.invalid:8001"})
        assert answer.status_code == 404


async def test_both_ports_have_probes(app: ASGIApp) -> None:
    for port in (8000, 8001):
        async with api_client(app, base_url=f"http://shop.invalid:{port}") as http:
            assert (await http.get("/health")).status_code == 200


async def test_without_an_internal_port_no_internal_path_is_reachable_even_where_the_port_is_unknown(
    settings: Any,
) -> None:
    app = by_port(
        create_api(settings, title="Shop", routers=[public], health=Health(), lifespan=lifespan),
        create_api(settings, title="Shop, internal", routers=[internal], health=Health()),
        None,
    )
    async with api_client(app, base_url="http://shop.invalid") as http:
        assert (await http.post("/internal/verify")).status_code == 404
        assert (await http.get("/orders")).status_code == 200
