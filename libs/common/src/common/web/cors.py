"""Cross-origin requests (the Fetch standard's CORS protocol) from the origins in the settings."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from common.web.problems import problem

_EXPOSED: Final = ("X-Request-ID", "ETag", "Location", "Link", "Retry-After", "X-Process-Time", "Server-Timing")
_ACCEPTED: Final = (
    "Authorization",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "X-Request-ID",
    "traceparent",
)
_METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


class Cors(CORSMiddleware):
    """As inherited, but a refused preflight is answered with a problem, like every refusal."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=_METHODS, allow_headers=_ACCEPTED, expose_headers=_EXPOSED
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        return response if response.status_code < 400 else _Refusal(response)


class _Refusal(Response):
    def __init__(self, refused: Response) -> None:
        super().__init__(status_code=refused.status_code)
        self._cause = bytes(refused.body).decode()
        self._cors = {name: value for name, value in refused.headers.items() if not name.startswith("content-")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem(
            Request(scope), self.status_code, "cors_refused", "Preflight refused", self._cause, headers=self._cors
        )
        await answer(scope, receive, send)
