"""The body of every error: RFC 9457 `application/problem+json`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse

from common.observability.trace import current_request_id

PROBLEM_TYPE: Final = "application/problem+json"
_TYPE_BASE: Final = "https://waybill.invalid/problems/"
TITLES: Final = {
    304: ("not_modified", "Not modified"),
    400: ("bad_request", "Bad request"),
    401: ("unauthorized", "Authentication required"),
    403: ("forbidden", "Not allowed"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    409: ("conflict", "Conflict with the current state"),
    410: ("gone", "No longer available"),
    412: ("precondition_failed", "Precondition failed"),
    413: ("payload_too_large", "Body too large"),
    415: ("unsupported_media_type", "Unsupported media type"),
    422: ("validation_error", "Invalid request"),
    429: ("too_many_requests", "Too many requests"),
    500: ("internal_error", "Internal error"),
    503: ("service_unavailable", "Temporarily unavailable"),
}
"""Code and title by status. Python's own phrases change between its versions."""


class Fault(BaseModel):
    """One invalid part of a request: its location, a message and a code to branch on."""

    loc: list[str | int]
    msg: str
    code: str


class Problem(BaseModel):
    """Problem details (RFC 9457). `code` is stable; `title` and `detail` are for people and may change."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[Fault] = []


def problem(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, Any]] | None = None,
) -> JSONResponse:
    """The answer for an error. `instance` is the path without the query, which may hold a secret."""
    body: dict[str, Any] = {
        "type": _TYPE_BASE + code,
        "title": title,
        "status": status,
        "detail": detail or title,
        "instance": quote(request.scope["path"]),
        "code": code,
        "request_id": current_request_id() or "",
    }
    if errors is not None:
        body["errors"] = list(errors)
    return JSONResponse(body, status_code=status, headers=headers, media_type=PROBLEM_TYPE)
