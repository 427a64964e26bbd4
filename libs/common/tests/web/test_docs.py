import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.web import ApiRouter, docs

router = ApiRouter()


@router.get("/orders")
async def list_orders() -> None: ...


@pytest.fixture
async def http(serve: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(router) as client:
        yield client


def links(page: str) -> list[str]:
    return re.findall(r'(?:src|href|spec-url|data-openapi)="([^"]*)"', page)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_pages_need_no_other_host(http: httpx.AsyncClient, page: str) -> None:
    answer = await http.get(page)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    found = links(answer.text)
    assert "/openapi.json" in found
    assert len(found) >= 3
    for link in found:
        assert link.startswith("/")
        assert (await http.get(link)).status_code == 200, link


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_behind_the_gateway_the_links_are_the_gateways(http: httpx.AsyncClient, page: str) -> None:
    found = links((await http.get(page, headers={"X-Waybill-Gateway": "1"})).text)
    assert "/openapi/shop.json" in found
    assert all(link.startswith(("/docs/shop/assets/", "/openapi/shop.json")) for link in found)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_pages_run_no_script_but_their_own_files(http: httpx.AsyncClient, page: str) -> None:
    answer = await http.get(page)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not re.search(r"<script>|<script [^>]*>[^<]|\son\w+=", answer.text)


async def test_an_unknown_asset_is_not_found(http: httpx.AsyncClient) -> None:
    for name in ("x.js", "..%2f..%2fapp.py", "%2e%2e"):
        assert (await http.get(f"/docs/assets/{name}")).status_code == 404


async def test_a_changed_asset_is_sent_again_though_its_size_and_time_are_the_same(
    http: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("old", "new"):
        file = tmp_path / version
        file.write_text(version)
        os.utime(file, (0, 0))
    monkeypatch.setitem(docs._ASSETS, "x.js", tmp_path / "old")
    old = await http.get("/docs/assets/x.js")
    known = {"If-None-Match": old.headers["etag"]}
    unchanged = await http.get("/docs/assets/x.js", headers=known)
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", old.headers["etag"])
    monkeypatch.setitem(docs._ASSETS, "x.js", tmp_path / "new")
    assert (await http.get("/docs/assets/x.js", headers=known)).text == "new"


async def test_redocs_logo_is_served_at_its_relative_path(http: httpx.AsyncClient) -> None:
    assert (await http.get("/redoc/logo-mini.svg")).headers["content-type"] == "image/svg+xml"


async def test_the_description_is_json(http: httpx.AsyncClient) -> None:
    answer = await http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["info"]["title"] == "Shop"
    assert answer.content == (await http.get("/openapi.json")).content
