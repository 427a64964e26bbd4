"""Lines that a stranger can cause are bounded, and what is left out is counted."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from common.observability.log_limit import MOST_LINES, LineLimit, limited_logger
from common.observability.logs import configure_logging
from common.observability.request_log import request_log
from common.observability.trace import new_trace, traced
from common.testing.plugin import eventually


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logging("orders", "api", stream=stream, human=False)
    yield stream
    request_log.configure("", "", io.StringIO(), direct=False)
    configure_logging("test", "pytest", "warning")


def lines(stream: io.StringIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, stream.getvalue().splitlines()) if line["event"] == event]


async def test_a_flood_of_one_cause_is_cut_and_every_other_line_written(stream: io.StringIO) -> None:
    flooded, other = limited_logger("flooded"), structlog.get_logger("other")
    for number in range(MOST_LINES + 50):
        flooded.error("forged event", number=number)
        flooded.error("message parked")
        other.info("attached")
    assert [line["number"] for line in lines(stream, "forged event")] == list(range(MOST_LINES))
    assert len(lines(stream, "message parked")) == MOST_LINES
    assert len(lines(stream, "attached")) == MOST_LINES + 50
    assert set(lines(stream, "forged event")[0]) == {
        "event", "number", "level", "logger", "service", "role", "timestamp"
    }  # fmt: skip


async def test_a_flood_of_bytes_that_are_no_http_is_cut_as_well(stream: io.StringIO) -> None:
    uvicorn = logging.getLogger("uvicorn.error")
    for _ in range(MOST_LINES + 50):
        uvicorn.warning("Invalid HTTP request received.")
        uvicorn.error("an error of our own")
    assert len(lines(stream, "Invalid HTTP request received.")) == MOST_LINES
    assert len(lines(stream, "an error of our own")) == MOST_LINES + 50


async def test_the_end_of_a_flood_is_one_line_with_the_count_and_a_new_flood_is_logged_again() -> None:
    with capture_logs() as logs:
        limit = LineLimit(most=3, window=0.01)
        with traced(request_id="one of many"):
            assert [limit.admits("forged", "error") for _ in range(5)] == [True] * 3 + [False] * 2
            assert limit.admits("undecodable")

        async def ended() -> bool:
            return bool(logs)

        await eventually(ended)
    assert logs == [
        {"event": "log lines left out", "of": "forged", "count": 2, "seconds": 0.01, "log_level": "error"}
    ]  # fmt: skip
    assert limit.admits("forged")


async def test_a_request_that_anybody_can_have_refused_is_logged_up_to_a_limit(stream: io.StringIO) -> None:
    trace = new_trace()
    for status in (401, 200, 409):
        for _ in range(1200):
            request_log.write(trace, method="GET", route="/orders", status=status, ms=1.0)
    found = [line["status"] for line in lines(stream, "request")]
    assert {status: found.count(status) for status in (401, 200, 409)} == {401: 1000, 200: 1200, 409: 1000}


def test_lines_are_not_limited_where_no_event_loop_runs(stream: io.StringIO) -> None:
    for _ in range(MOST_LINES + 1):
        limited_logger("commands").error("forged event")
    assert len(lines(stream, "forged event")) == MOST_LINES + 1
