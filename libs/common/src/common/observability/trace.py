"""The ids of the current request or message, in a context variable, so that log lines and events carry them."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NamedTuple

from uuid_utils import uuid7

_TRACEPARENT: Final = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<ids>(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?P<more>-.*)?"
)


class Trace(NamedTuple):
    """The ids of one request or message: a request id for people, a `traceparent` (W3C Trace Context) for tracing."""

    request_id: str
    traceparent: str

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]


_current: ContextVar[Trace | None] = ContextVar("waybill_trace", default=None)
current_trace: Final = _current.get
enter_trace: Final = _current.set
leave_trace: Final = _current.reset


def read_traceparent(text: str | None) -> str | None:
    """A caller's `traceparent` as version 00, or None where it is invalid (W3C Trace Context §3.2)."""
    match = _TRACEPARENT.fullmatch(text) if text else None
    if match is None or (match["more"] and match["version"] == "00"):
        return None
    return "00-" + match["ids"]


def new_trace(request_id: str | None = None, traceparent: str | None = None) -> Trace:
    """A trace that continues a valid `traceparent`, else a new one that is not sampled."""
    return Trace(request_id or str(uuid7()), read_traceparent(traceparent) or _unsampled())


def _unsampled() -> str:
    digits = random.randbytes(24).hex()  # noqa: S311 - ids for correlation, not secrets
    return f"00-{digits[:32]}-{digits[32:]}-00"


@contextmanager
def traced(*, request_id: str | None = None, traceparent: str | None = None) -> Iterator[Trace]:
    """Binds the ids of one piece of work (a message, a command) to its log lines and events."""
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
