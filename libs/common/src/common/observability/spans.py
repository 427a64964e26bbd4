"""Spans: what OpenTelemetry is told of the work at hand.

Where nothing records them (`common.observability.otel` does, where a collector is configured), ids are passed on as
they came, and that is all it costs. Names and attributes are those of OpenTelemetry's semantic conventions. No span
holds a query, a body, a person's address or an error's text.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Self

from common.observability.trace import current_traceparent

Kind = Literal["server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int]


class Span:
    """One piece of work. As a context manager it ends with the block; what is logged, recorded or asked of others in
    the block belongs to it.

    This one is not recorded: its `traceparent` is that of the work it is part of.
    """

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    @property
    def is_sampled(self) -> bool:
        """Whether the collector gets it."""
        return False

    def note(self, attributes: Attributes) -> None: ...

    def rename(self, name: str) -> None: ...

    def fail(self, error: str) -> None:
        """`error` is a kind of error (`error.type`), of which there are few."""

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


def record_by(start: Start | None) -> None:
    """`start` begins each span of this process from now on; None ends the recording.

    Its arguments are those of `span`, the last two as traceparents.
    """
    _recorder.start = start


def are_recorded() -> bool:
    return _recorder.start is not None


def span(name: str, kind: Kind, attributes: Attributes, parent: str | None = None, links: Sequence[str] = ()) -> Span:
    """A span that begins now, as part of `parent`, else of the work at hand, else of nothing known."""
    parent = parent or current_traceparent()
    return Span(parent) if _recorder.start is None else _recorder.start(name, kind, attributes, parent, links)
