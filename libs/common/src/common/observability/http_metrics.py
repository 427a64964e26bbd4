"""Figures for Prometheus. Labels are bounded: a route's template, never a path; a known method; a class of statuses."""

from typing import Final

from prometheus_client import REGISTRY, Histogram
from prometheus_client.exposition import choose_encoder

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_requests: Final = Histogram(
    "http_server_request_duration_seconds",
    "Time from the request's arrival to the end of its answer.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_children: Final[dict[tuple[str, str, int], Histogram]] = {}


def observe_request(method: str, route: str, status: int, seconds: float, trace_id: str | None = None) -> None:
    """Counts one answered request. `route` is the template that matched, or a constant where none did.

    `trace_id` leads from the figure to an example of it (OpenMetrics' exemplars), where there is a trace to see.
    """
    key = (method if method in _METHODS else "other", route, status // 100)
    child = _children.get(key)
    if child is None:
        child = _children[key] = _requests.labels(key[0], route, f"{key[2]}xx")
    child.observe(seconds, {"trace_id": trace_id} if trace_id else None)


def metrics_text(accept: str) -> tuple[bytes, str]:
    """All of the process's metrics, in the format that the reader's `Accept` asks for, and its `Content-Type`."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type
