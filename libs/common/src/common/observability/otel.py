"""Records spans with OpenTelemetry's SDK and sends them to a collector by OTLP over HTTP.

Only this module imports the SDK. `common.cli.roles` loads it by import string where a collector is configured, because
the SDK adds a sixth of a second to a start and 5 MB to a process. OpenTelemetry's own environment variables set the
collector and the sampling.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Token
from threading import Thread
from types import TracebackType
from typing import Final, Self

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from common.db.database import new_id
from common.observability.spans import Attributes, Kind, Span, Start, set_recorder
from common.observability.trace import Trace, current_request_id, enter_trace, leave_trace, new_trace

_FLUSH_TIMEOUT: Final = 5.0
"""Seconds that a stopping process waits for the collector: well within any grace period."""
_NOWHERE: Final = Context()


@contextmanager
def recording(service: str, role: str) -> Iterator[None]:
    """Records the process's spans for the length of the block, and sends the remaining ones at its end."""
    # One line instead of three every few seconds while the collector is unavailable.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    own = {"service.namespace": "waybill", "service.name": service, "waybill.role": role}
    resource = Resource({**own, "service.instance.id": str(new_id())}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    set_recorder(_starting(provider.get_tracer("waybill")))
    try:
        yield
    finally:
        set_recorder(None)
        flushing = Thread(target=provider.shutdown, name="flush-spans", daemon=True)
        flushing.start()
        flushing.join(_FLUSH_TIMEOUT)


def _starting(tracer: Tracer) -> Start:
    def start(name: str, kind: Kind, attributes: Attributes, parent: str | None, links: Sequence[str]) -> "_Recorded":
        context = _NOWHERE if parent is None else set_span_in_context(NonRecordingSpan(_context(parent)), _NOWHERE)
        linked = [Link(_context(link)) for link in links]
        return _Recorded(tracer.start_span(name, context, SpanKind[kind.upper()], attributes, linked))

    return start


def _context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


class _Recorded(Span):
    __slots__ = ("_span", "_token")
    _token: Token[Trace | None]

    def __init__(self, span: OtelSpan) -> None:
        own = span.get_span_context()
        super().__init__(f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}")
        self._span = span

    @property
    def is_sampled(self) -> bool:
        return self._span.is_recording()

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, error: str) -> None:
        self._span.set_attribute("error.type", error)
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        self._span.end()

    def __enter__(self) -> Self:
        self._token = enter_trace(new_trace(current_request_id(), self.traceparent))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        leave_trace(self._token)
        if kind is not None and issubclass(kind, Exception):
            self.fail(kind.__qualname__)
        self.end()
