"""What a log line holds and what it must not: the steps every line goes through (structlog's processors)."""

import re
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from common.observability.trace import current_trace

Line = MutableMapping[str, Any]

_SECRETS: Final = re.compile(
    r"(?P<mail>[^\s@'\"<>()=,;:/]{1,64}@[^\s@'\"<>()=,;:/]{1,250}\.[A-Za-z]{2,63})"
    r"|(?P<jwt>eyJ[\w-]{5,}\.[\w-]+\.[\w-]*)"
    r"|(?<=://)(?P<userinfo>[^\s/]{1,256})(?=@)"
    r"|(?P<query>\?[^\s'\"<>]*=[^\s'\"<>]*)"
    r"|(?<=Bearer )(?P<bearer>\S+)"
    r"|(?<=Basic )(?P<basic>\S+)"
    r"|(?P<webhook>whsec_[\w+/=-]+)"
)
_HINTS: Final = ("@", "?", "eyJ", "Bearer ", "Basic ", "whsec_")
_SECRET_KEYS: Final = frozenset(
    {
        "password",
        "secret",
        "client_secret",
        "token",
        "refresh_token",
        "access_token",
        "authorization",
        "email",
        "cookie",
    }
)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Origin:
    """Adds when and where: time, service, role, and the ids of the work at hand."""

    def __init__(self, service: str, role: str) -> None:
        self._service = service
        self._role = role

    def __call__(self, _logger: Any, _method: str, line: Line) -> Line:
        line["timestamp"] = timestamp()
        line["service"] = self._service
        line["role"] = self._role
        trace = current_trace()
        if trace is not None:
            line.setdefault("request_id", trace.request_id)
            line.setdefault("trace_id", trace.trace_id)
        return line


def add_name(logger: Any, _method: str, line: Line) -> Line:
    if name := getattr(logger, "name", ""):
        line["logger"] = name
    return line


def scrub(_logger: Any, _method: str, line: Line) -> Line:
    """Removes what must not be at rest in a log, wherever a library's message or an exception's text brought it."""
    for key, value in line.items():
        if key in _SECRET_KEYS:
            line[key] = "[redacted]"
        elif isinstance(value, str):
            line[key] = scrubbed(value)
        elif isinstance(value, Mapping | list | tuple | set | BaseException):
            line[key] = scrubbed(str(value))
    return line


def scrubbed(text: str) -> str:
    """The text with each secret replaced by what it was: `[mail]`, `[jwt]`, `[query]`, …"""
    if any(hint in text for hint in _HINTS):
        return _SECRETS.sub(lambda match: f"[{match.lastgroup}]", text)
    return text


def escape_controls(_logger: Any, _method: str, line: Line) -> Line:
    """Keeps one line one line on a terminal, and terminal commands out of it. JSON escapes by itself."""
    for key, value in line.items():
        if isinstance(value, str) and key != "exception":
            line[key] = _CONTROL.sub(lambda match: repr(match[0])[1:-1], value)
    return line


_second: tuple[int, str] = (0, "")


def timestamp() -> str:
    """Now, in RFC 3339 with milliseconds. The part down to the second is formatted once a second."""
    global _second  # noqa: PLW0603 - a cache of one; a race costs one more formatting
    now = time.time()
    second = int(now)
    at, text = _second
    if at != second:
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        _second = (second, text)
    return f"{text}{int((now - second) * 1000):03d}Z"
