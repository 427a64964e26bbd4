"""structlog processors: they add a log line's origin and remove secrets and control characters."""

import re
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from common.observability.trace import current_trace

Record = MutableMapping[str, Any]
"""A log line before it is rendered."""

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
    """Adds the time, the service, the role and the ids of the current request or message."""

    def __init__(self, service: str, role: str) -> None:
        self._service = service
        self._role = role

    def __call__(self, _logger: Any, _method: str, record: Record) -> Record:
        record["timestamp"] = timestamp()
        record["service"] = self._service
        record["role"] = self._role
        trace = current_trace()
        if trace is not None:
            record.setdefault("request_id", trace.request_id)
            record.setdefault("trace_id", trace.trace_id)
        return record


def add_name(logger: Any, _method: str, record: Record) -> Record:
    if name := getattr(logger, "name", ""):
        record["logger"] = name
    return record


def scrub(_logger: Any, _method: str, record: Record) -> Record:
    """Removes secrets and addresses, also those in a library's messages and in exceptions' texts."""
    for key, value in record.items():
        if key in _SECRET_KEYS:
            record[key] = "[redacted]"
        elif isinstance(value, str):
            record[key] = scrubbed(value)
        elif isinstance(value, Mapping | list | tuple | set | BaseException):
            record[key] = scrubbed(str(value))
    return record


def scrubbed(text: str) -> str:
    """The text with each secret replaced by its kind: `[mail]`, `[jwt]`, `[query]`, …"""
    if any(hint in text for hint in _HINTS):
        return _SECRETS.sub(lambda match: f"[{match.lastgroup}]", text)
    return text


def escape_controls(_logger: Any, _method: str, record: Record) -> Record:
    """Escapes line breaks and terminal commands, for a terminal only: the JSON renderer escapes them anyway."""
    for key, value in record.items():
        if isinstance(value, str) and key != "exception":
            record[key] = _CONTROL.sub(lambda match: repr(match[0])[1:-1], value)
    return record


_second: tuple[int, str] = (0, "")


def timestamp() -> str:
    """Now, in RFC 3339 with milliseconds. Formats the part down to the second once per second."""
    global _second  # noqa: PLW0603 - a cache; a race formats once more
    now = time.time()
    second = int(now)
    at, text = _second
    if at != second:
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        _second = (second, text)
    return f"{text}{int((now - second) * 1000):03d}Z"
