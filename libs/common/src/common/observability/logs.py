"""Structured logs: one JSON object per line on standard error (coloured text on a terminal)."""

import logging
import sys
from typing import Any, Final, TextIO

# Where rich is installed, structlog loads it for tracebacks that nobody here prints: a sixth of a process's start.
_rich = sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
import structlog  # noqa: E402

if _rich is None:
    del sys.modules["rich"]

from common.observability.log_processors import Origin, add_name, escape_controls, scrub  # noqa: E402
from common.observability.request_log import request_log  # noqa: E402
from common.observability.trace import current_request_id, current_traceparent, traced  # noqa: E402

__all__ = ["configure_logging", "current_request_id", "current_traceparent", "traced"]

_QUIET: Final = ("httpx", "httpcore", "aio_pika", "aiormq", "sqlalchemy", "alembic", "asyncio")
"""Libraries that tell at info level what our own lines tell better, some with addresses."""


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
    steps: list[Any] = [Origin(service, role), structlog.processors.format_exc_info, scrub]
    if human:
        steps += [escape_controls, structlog.dev.ConsoleRenderer(colors=True)]
    else:
        steps += [structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[structlog.processors.add_log_level, add_name, *steps],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=_LoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    request_log.configure(service, role, stream, direct=not human and threshold <= logging.INFO)
    _redirect_standard_library(stream, threshold, steps)


def _redirect_standard_library(stream: TextIO, threshold: int, steps: list[Any]) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *steps],
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
