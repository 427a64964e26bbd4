"""Work around every request: ids, timing, one log line and one measurement. Plain ASGI, for speed."""

import json
import re
from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.observability.http_metrics import observe_request
from common.observability.log_limit import limited_logger
from common.observability.log_processors import scrubbed
from common.observability.request_log import request_log
from common.observability.spans import Span, are_recorded
from common.observability.spans import span as start_span
from common.observability.trace import Trace, enter_trace, leave_trace, new_trace, read_traceparent
from common.runtime.health import Health

log = limited_logger(__name__)

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_UNMATCHED: Final = "(no route)"
_PROBES: Final = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
"""Requested every few seconds, so they are measured but not logged."""
_NO_STORE: Final = (b"cache-control", b"no-store")
"""The default: answers hold data about people and their orders (OWASP ASVS 5, 14.3.2)."""


class RequestMiddleware:
    """The outermost layer, so that every answer passes it.

    Adds `X-Request-ID`, `X-Process-Time` and `Server-Timing` to answers, and `Cache-Control: no-store` to those without
    a `Cache-Control`. While the process drains, answers carry `Connection: close` (RFC 9112 §9.6), so that clients and
    load balancers open a connection to another process. HEAD is handled as GET (RFC 9110 §9.3.2); the server omits the
    body. The seconds in the state's `waited`, in which a route waited for something to happen, are not measured.
    """

    def __init__(self, app: ASGIApp, *, health: Health) -> None:
        self._app = app
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        trace, span = _start_trace(scope)
        token = enter_trace(trace)
        scope.setdefault("state", {})
        inner = {**scope, "method": "GET", "is_head": True} if scope["method"] == "HEAD" else scope
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                if status:
                    raise RuntimeError("error after the start of the answer")
                status = message["status"]
                seconds = perf_counter() - started
                headers = message.get("headers", ())
                message["headers"] = [
                    *headers,
                    *(() if any(name == b"cache-control" for name, _ in headers) else (_NO_STORE,)),
                    (b"x-request-id", trace.request_id.encode()),
                    (b"x-process-time", b"%.3fs" % seconds),
                    (b"server-timing", b"app;dur=%.1f" % (seconds * 1000)),
                    (b"x-content-type-options", b"nosniff"),  # OWASP ASVS 5, 3.4.4
                ]
                if self._health.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(inner, receive, send_with_headers)
        except Exception:
            log.exception("unexpected error outside of a route")
            if not status:
                await _send_bare_500(trace, send_with_headers)
        finally:
            scope["route"] = inner.get("route")
            _record(scope, trace, span, status, perf_counter() - started - scope["state"].get("waited", 0.0))
            leave_trace(token)


def _start_trace(scope: Scope) -> tuple[Trace, Span | None]:
    """The request's ids, and its span where spans are recorded."""
    headers = dict(scope["headers"])
    sent_id, sent_parent = headers.get(b"x-request-id"), headers.get(b"traceparent")
    request_id = sent_id.decode() if sent_id is not None and _REQUEST_ID.fullmatch(sent_id) else None
    parent = sent_parent.decode("latin-1") if sent_parent is not None else None
    if not are_recorded() or scope["path"] in _PROBES:
        return new_trace(request_id, parent), None
    attributes = {"http.request.method": scope["method"], "url.scheme": scope["scheme"]}
    span = start_span(scope["method"], "server", attributes, read_traceparent(parent))
    return new_trace(request_id, span.traceparent), span


def _end_span(span: Span, scope: Scope, trace: Trace, status: int) -> None:
    attributes: dict[str, str | int] = {
        "url.path": scrubbed(scope["path"][:200]),
        "waybill.request_id": trace.request_id,
    }
    if route := scope.get("route"):
        span.rename(f"{scope['method']} {route.path}")
        attributes["http.route"] = route.path
    if status:
        attributes["http.response.status_code"] = status
    span.note(attributes)
    if status >= 500 or not status:
        span.fail(str(status) if status else "disconnected")
    span.end()


def _record(scope: Scope, trace: Trace, span: Span | None, status: int, seconds: float) -> None:
    """Writes the request's metric, span and log line. `status` 0 means that no answer was sent."""
    method: str = scope["method"]
    route = scope.get("route")
    template = _UNMATCHED if route is None else route.path
    is_sampled = span is not None and span.is_sampled
    observe_request(method, template, status, seconds, trace.trace_id if is_sampled else None)
    if span is not None:
        _end_span(span, scope, trace, status)
    if template in _PROBES:
        return
    request_log.write(
        trace,
        method=method,
        route=template,
        status=status,
        ms=seconds * 1000,
        principal=scope["state"].get("principal"),
        path=scope["path"][:200] if route is None else "",
    )


async def _send_bare_500(trace: Trace, send: Send) -> None:
    """The answer when rendering the error failed, too."""
    body = {"type": "about:blank", "title": "Internal error", "status": 500, "code": "internal_error"}
    content = json.dumps(body | {"request_id": trace.request_id}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": content})
