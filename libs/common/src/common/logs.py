"""Structured logs: one JSON object per line on standard error (coloured text on a terminal).

The ids of the work at hand travel in a context variable, so that every line and every recorded event carries them.
Lines hold ids, never payloads: e-mail addresses, tokens, query strings and credentials are scrubbed from whatever
libraries say.
"""

import logging
import random
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TextIO

import structlog
from uuid_utils import uuid7

_TRACEPARENT: Final = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<ids>(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?P<more>-.*)?"
)

_SECRETS: Final = re.compile(
    r"(?P<mail>[^\s@'\"<>()=,;:/]+@[^\s@'\"<>()=,;:/]+\.[A-Za-z]{2,})"
    r"|(?P<jwt>eyJ[\w-]{5,}\.[\w-]+\.[\w-]*)"
    r"|(?<=://)(?P<userinfo>[^\s/@]+)(?=@)"
    r"|(?P<query>\?[^\s'\"<>]*=[^\s'\"<>]*)"
    r"|(?<=Bearer )(?P<bearer>\S+)"
    r"|(?P<webhook>whsec_[\w+/=-]+)"
)
_SECRET_KEYS: Final = frozenset({"password", "secret", "client_secret", "token", "authorization", "email", "cookie"})
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_QUIET: Final = ("httpx", "httpcore", "aio_pika", "aiormq", "sqlalchemy", "alembic", "asyncio")


class Trace(NamedTuple):
    """What one request or message is known by: an id for people, a W3C Trace Context header for machines."""

    request_id: str
    traceparent: str

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]


_current: ContextVar[Trace | None] = ContextVar("waybill_trace", default=None)
enter_trace: Final = _current.set
leave_trace: Final = _current.reset


def new_trace(request_id: str | None = None, traceparent: str | None = None) -> Trace:
    """A trace that continues `traceparent` where that is valid (W3C Trace Context §3.2), else a new, unsampled one.

    Nothing here makes spans, so the caller's parent id is passed through as it came.
    """
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None or (match["more"] and match["version"] == "00"):
        bits = random.getrandbits(192)
        ids = f"{bits >> 64 | 1:032x}-{bits & 0xFFFFFFFFFFFFFFFF | 1:016x}-00"
    else:
        ids = match["ids"]
    return Trace(request_id or str(uuid7()), f"00-{ids}")


@contextmanager
def traced(*, request_id: str | None = None, traceparent: str | None = None) -> Iterator[Trace]:
    """Binds the ids of one unit of work (a consumed message, a command) to its logs and its events."""
    trace = new_trace(request_id, traceparent)
    token = enter_trace(trace)
    try:
        yield trace
    finally:
        leave_trace(token)


def current_request_id() -> str | None:
    trace = _current.get()
    return trace.request_id if trace is not None else None


def current_traceparent() -> str | None:
    trace = _current.get()
    return trace.traceparent if trace is not None else None


def configure_logging(
    service: str, role: str, level: str = "info", *, stream: TextIO | None = None, human: bool | None = None
) -> None:
    """Sends structlog's and the standard library's lines (uvicorn, SQLAlchemy, aio-pika, …) the same way.

    `stream` is standard error unless given: standard output belongs to what a command prints. `human` is the
    terminal's format instead of JSON; by default so where `stream` is a terminal.
    """
    stream = stream if stream is not None else sys.stderr
    human = stream.isatty() if human is None else human
    threshold = logging.getLevelNamesMapping()[level.upper()]
    common: list[Any] = [
        _Origin(service, role),
        structlog.processors.format_exc_info,
        scrub,
        structlog.dev.ConsoleRenderer(colors=True) if human else structlog.processors.JSONRenderer(default=str),
    ]
    if human:
        common.insert(-1, escape_controls)
    structlog.configure(
        processors=[structlog.processors.add_log_level, _add_name, *common],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=_LoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *common],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "fastapi"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = name != "uvicorn.access"  # the middleware writes the request's line
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(capture=True)


class _Origin:
    """Adds where and when: time, service, role, and the ids of the work at hand."""

    def __init__(self, service: str, role: str) -> None:
        self._service = service
        self._role = role

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event["service"] = self._service
        event["role"] = self._role
        trace = _current.get()
        if trace is not None:
            event.setdefault("request_id", trace.request_id)
            event.setdefault("trace_id", trace.traceparent[3:35])
        return event


class _Logger(structlog.WriteLogger):
    name: str


class _LoggerFactory:
    """Loggers that write to one stream and know the name they were asked for by."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, *args: Any) -> _Logger:
        logger = _Logger(self._stream)
        logger.name = str(args[0]) if args else ""
        return logger


def _add_name(logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if name := getattr(logger, "name", ""):
        event["logger"] = name
    return event


def scrub(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Removes what must not be at rest in a log, wherever a library's message or an exception's text brought it."""
    for key, value in event.items():
        if key in _SECRET_KEYS:
            event[key] = "[redacted]"
        elif isinstance(value, str):
            event[key] = _scrubbed(value)
        elif isinstance(value, Mapping | list | tuple):
            event[key] = _scrubbed(str(value))
    return event


def _scrubbed(text: str) -> str:
    if "@" in text or "?" in text or "eyJ" in text or "Bearer " in text or "whsec_" in text:
        return _SECRETS.sub(lambda match: f"[{match.lastgroup}]", text)
    return text


def escape_controls(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keeps one line one line on a terminal, and terminal commands out of it. JSON escapes by itself."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = _CONTROL.sub(lambda match: repr(match[0])[1:-1], value)
    return event
