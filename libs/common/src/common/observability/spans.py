"""Spans of requests, messages and calls, independent of OpenTelemetry's SDK.

`common.observability.otel` records them where a collector is configured. Otherwise a span only passes the caller's ids
on, at almost no cost. Names and attributes follow OpenTelemetry's semantic conventions. No span holds a query, a body,
a person's address or an error's text.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Self

from common.observability.trace import current_traceparent

Kind = Literal["server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int]


class Span:
    """One piece of work. As a context manager it ends with the block, and log lines, events and calls in the block
    belong to it.

    This class is not recorded: its `traceparent` is the parent's.
    """

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    @property
    def is_sampled(self) -> bool:
        """Whether the collector gets this span."""
        return False

    def note(self, attributes: Attributes) -> None: ...

    def rename(self, name: str) -> None: ...

    def fail(self, error: str) -> None:
        """Marks the span as failed. `error` is a kind of error (`error.type`), from a small set."""

    def end(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


Start = Callable[[str, Kind, Attributes, str | None, Sequence[str]], Span]


class _Recorder:
    start: Start | None = None


_recorder: Final = _Recorder()


def set_recorder(start: Start | None) -> None:
    """Makes `start` start every span of this process. None stops recording.

    Its arguments are those of `span`; `parent` and `links` are traceparents.
    """
    _recorder.start = start


def are_recorded() -> bool:
    return _recorder.start is not None


def span(name: str, kind: Kind, attributes: Attributes, parent: str | None = None, links: Sequence[str] = ()) -> Span:
    """Starts a span: a child of `parent`, by default of the current trace, if there is one."""
    parent = parent or current_traceparent()
    return Span(parent) if _recorder.start is None else _recorder.start(name, kind, attributes, parent, links)
