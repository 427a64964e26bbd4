"""Structured logs: one JSON object per line on standard error (coloured text on a terminal)."""

import importlib
import logging
import sys
from functools import partial
from typing import Any, Final, TextIO


def _import_structlog_without_rich() -> None:
    # structlog imports rich, where it is installed, for coloured tracebacks, which we do not print. Without it a worker
    # starts with a seventh less CPU time and 4 MB less memory. `None` in `sys.modules` makes an import fail. This has
    # an effect only where nothing has imported structlog yet, as in `python -m SERVICE`.
    rich = sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    importlib.import_module("structlog")
    if rich is None:
        del sys.modules["rich"]


_import_structlog_without_rich()

import structlog  # noqa: E402

from common.observability.log_limit import LineLimit  # noqa: E402
from common.observability.log_processors import Origin, add_name, escape_controls, scrub  # noqa: E402
from common.observability.request_log import request_log  # noqa: E402

_QUIET: Final = ("httpx", "httpcore", "aio_pika", "aiormq", "sqlalchemy", "alembic", "asyncio")
"""Libraries whose info lines repeat ours, some with addresses in them."""


def configure_logging(
    service: str, role: str, level: str = "info", *, stream: TextIO | None = None, human: bool | None = None
) -> None:
    """Writes structlog's and the standard library's lines (uvicorn, SQLAlchemy, aio-pika, …) to one stream.

    `stream` defaults to standard error, because commands print to standard output. `human` selects coloured text
    instead of JSON and defaults to whether `stream` is a terminal.
    """
    stream = stream if stream is not None else sys.stderr
    human = stream.isatty() if human is None else human
    threshold = logging.getLevelNamesMapping()[level.upper()]
    processors: list[Any] = [Origin(service, role), structlog.processors.format_exc_info, scrub]
    if human:
        processors += [escape_controls, structlog.dev.ConsoleRenderer(colors=True)]
    else:
        processors += [structlog.processors.JSONRenderer(default=str)]
    limit = LineLimit()
    structlog.configure(
        processors=[limit, structlog.processors.add_log_level, add_name, *processors],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=partial(_logger, stream),
        cache_logger_on_first_use=False,
    )
    request_log.configure(service, role, stream, direct=not human and threshold <= logging.INFO)
    _redirect_standard_library(stream, threshold, processors, limit)


def _redirect_standard_library(stream: TextIO, threshold: int, processors: list[Any], limit: LineLimit) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *processors],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "fastapi"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = name != "uvicorn.access"  # RequestMiddleware writes the request's line
    # Lines that a stranger can cause, by sending what is not HTTP.
    logging.getLogger("uvicorn.error").filters = [
        lambda record: record.levelno != logging.WARNING or limit.admits(str(record.msg))
    ]
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(capture=True)


class _Logger(structlog.WriteLogger):
    name: str


def _logger(stream: TextIO, *args: Any) -> _Logger:
    """A logger that writes to the stream and knows its name."""
    logger = _Logger(stream)
    logger.name = str(args[0]) if args else ""
    return logger
