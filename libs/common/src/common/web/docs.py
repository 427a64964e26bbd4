"""`/docs`, `/redoc` and `/openapi.json`, without internet access: Swagger UI and ReDoc come from a package."""

import hashlib
import importlib.resources
import json
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from common.runtime.health_endpoints import UnlistedRoute
from common.web.headers import is_not_modified

GATEWAY_HEADER: Final = "x-waybill-gateway"
"""Set by the gateway only. It serves the pages of all services, each under paths of its own."""

_LIBRARY: Final = importlib.resources.files("fastapi_standalone_docs") / "static"
_OWN: Final = importlib.resources.files("common.web") / "assets"
_ASSETS: Final = {
    "swagger-ui.css": _LIBRARY / "swagger" / "swagger-ui.css",
    "swagger-ui-bundle.js": _LIBRARY / "swagger" / "swagger-ui-bundle.js",
    "swagger-init.js": _OWN / "swagger-init.js",
    "oauth2-redirect.html": _OWN / "oauth2-redirect.html",
    "oauth2-redirect.js": _OWN / "oauth2-redirect.js",
    "redoc.standalone.js": _LIBRARY / "redoc" / "redoc.standalone.js",
    "logo-mini.svg": _LIBRARY / "redoc" / "logo-mini.svg",  # ReDoc's page requests it by a relative path
    "favicon.png": _LIBRARY / "fastapi" / "favicon.png",
}
_HEADERS: Final = {
    # Both pages set styles from scripts; ReDoc builds its search index in a worker from a blob.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Vary": "X-Waybill-Gateway",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ margin: 0 }}</style>
<link rel="icon" href="{assets}favicon.png">
{head}</head>
<body>
{body}
</body>
</html>
"""
_SWAGGER_HEAD: Final = '<link rel="stylesheet" href="{assets}swagger-ui.css">\n'
_SWAGGER: Final = """<div id="swagger-ui" data-openapi="{openapi}" data-client="web"
 data-redirect="{assets}oauth2-redirect.html"></div>
<script src="{assets}swagger-ui-bundle.js"></script>
<script src="{assets}swagger-init.js"></script>"""
_REDOC: Final = """<redoc spec-url="{openapi}"></redoc>
<script src="{assets}redoc.standalone.js"></script>"""


@cache
def _etag(file: Path) -> str:
    """Hashes the content: in an image all files have the same time, and two versions may have the same size."""
    with file.open("rb") as content:
        return f'"{hashlib.file_digest(content, "sha256").hexdigest()}"'


def docs_routes(service: str, title: str, openapi: Callable[[], dict[str, Any]]) -> list[Route]:
    """The pages of one API. `openapi` is called once, at the first request."""
    document: list[bytes] = []

    def page(request: Request, head: str, body: str) -> Response:
        by_gateway = request.headers.get(GATEWAY_HEADER) == "1"
        links = {
            "assets": f"/docs/{service}/assets/" if by_gateway else "/docs/assets/",
            "openapi": f"/openapi/{service}.json" if by_gateway else "/openapi.json",
        }
        html = _PAGE.format(title=escape(title), head=head.format(**links), body=body.format(**links), **links)
        return HTMLResponse(html, headers=_HEADERS)

    async def docs(request: Request) -> Response:
        return page(request, _SWAGGER_HEAD, _SWAGGER)

    async def redoc(request: Request) -> Response:
        return page(request, "", _REDOC)

    async def asset(request: Request) -> Response:
        path = _ASSETS.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        file = Path(str(path))
        headers = {"Cache-Control": "public, max-age=86400", "ETag": _etag(file)}
        if path.name.endswith(".html"):  # its address holds a code
            headers |= _HEADERS | {"Cache-Control": "no-store"}
        if is_not_modified(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return FileResponse(file, headers=headers)

    async def description(_request: Request) -> Response:
        if not document:
            document.append(json.dumps(openapi(), ensure_ascii=False).encode())
        return Response(document[0], media_type="application/json")

    return [
        UnlistedRoute("/docs", docs),
        UnlistedRoute("/docs/assets/{name}", asset),
        UnlistedRoute("/redoc", redoc),
        UnlistedRoute("/redoc/{name}", asset),
        UnlistedRoute("/openapi.json", description),
    ]
