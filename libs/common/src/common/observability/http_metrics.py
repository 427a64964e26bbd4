"""Request metrics for Prometheus. Labels are bounded: a route's template, a known method, a class of statuses."""

from typing import Final

from prometheus_client import REGISTRY, Histogram
from prometheus_client.exposition import choose_encoder

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_requests: Final = Histogram(
    "http_server_request_duration_seconds",
    "Seconds from the request's arrival to the end of its answer.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_cache: Final[dict[tuple[str, str, int], Histogram]] = {}


def observe_request(method: str, route: str, status: int, seconds: float, trace_id: str | None = None) -> None:
    """Records one answered request. `route` is the template that matched, or a constant where none did.

    `trace_id`, of a trace that the collector gets, links the metric to an example (OpenMetrics exemplars).
    """
    key = (method if method in _METHODS else "other", route, status // 100)
    child = _cache.get(key)
    if child is None:
        child = _cache[key] = _requests.labels(key[0], route, f"{key[2]}xx")
    child.observe(seconds, {"trace_id": trace_id} if trace_id else None)


def metrics_text(accept: str) -> tuple[bytes, str]:
    """All metrics of the process in the format of the `Accept` header, and its `Content-Type`."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type
