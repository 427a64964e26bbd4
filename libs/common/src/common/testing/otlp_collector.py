"""A collector for tests: receives and keeps the spans that OpenTelemetry exports (OTLP/HTTP, protobuf)."""

import json
import threading
from dataclasses import asdict, dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


@dataclass(frozen=True)
class ExportedSpan:
    """A span. Ids are hexadecimal, times nanoseconds since the epoch; `parent_id` is empty without a parent."""

    service: str
    role: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[tuple[str, str]]
    """Pairs of trace id and span id."""
    started: int
    ended: int
    is_error: bool
    attributes: dict[str, Any]


class Collector:
    """Listens at `url` for the length of the block, in its own threads, so that blocking exporters can be tested."""

    def __init__(self) -> None:
        self.spans: list[ExportedSpan] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self.spans))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def of_trace(self, trace_id: str) -> list[ExportedSpan]:
        """The trace's spans in the order of their start."""
        return sorted((span for span in list(self.spans) if span.trace_id == trace_id), key=lambda span: span.started)

    def write(self, trace_id: str, file: Path) -> None:
        file.write_text(json.dumps([asdict(span) for span in self.of_trace(trace_id)], indent=2) + "\n")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, spans: list[ExportedSpan], *arguments: Any) -> None:
        self._spans = spans
        super().__init__(*arguments)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_ours = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
        if is_ours:
            self._spans += _decoded(ExportTraceServiceRequest.FromString(body))
        self.send_response(200 if is_ours else 400)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - the base class's name


def _decoded(request: ExportTraceServiceRequest) -> list[ExportedSpan]:
    return [
        _span(span, _attributes(of_resource.resource.attributes))
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _span(span: Span, resource: dict[str, Any]) -> ExportedSpan:
    return ExportedSpan(
        service=resource["service.name"],
        role=resource["waybill.role"],
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        started=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        attributes=_attributes(span.attributes),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")

    return {pair.key: value(pair) for pair in pairs}
