import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from common.observability.log_processors import scrubbed
from common.observability.logs import configure_logging
from common.observability.request_log import request_log
from common.observability.trace import current_request_id, current_traceparent, traced

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"

Configure = Callable[..., io.StringIO]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Configures logging as a role does, to the test's own stream."""
    root = logging.getLogger()
    before = (root.handlers, root.level)

    def make(level: str = "info", *, human: bool = False) -> io.StringIO:
        stream = io.StringIO()
        configure_logging("orders", "relay", level, stream=stream, human=human)
        return stream

    yield make
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers, root.level = before
    request_log.configure("", "", io.StringIO(), direct=False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_its_origin(configure: Configure) -> None:
    stream = configure()
    structlog.get_logger("orders.relay").info("published", count=3)
    [line] = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "published",
        "count": 3,
        "level": "info",
        "logger": "orders.relay",
        "service": "orders",
        "role": "relay",
    }


@pytest.mark.parametrize("name", ["uvicorn.error", "sqlalchemy.pool", "aio_pika.robust_connection", "my.module"])
def test_lines_of_libraries_look_the_same(configure: Configure, name: str) -> None:
    stream = configure()
    logging.getLogger(name).warning("closed %s", 1)
    [line] = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == ("closed 1", name, "warning")
    assert (line["service"], line["role"]) == ("orders", "relay")


def test_libraries_log_from_warning_up_and_uvicorn_logs_no_requests(configure: Configure) -> None:
    stream = configure()
    logging.getLogger("httpx").info("HTTP Request: GET http://auth/token")
    logging.getLogger("uvicorn.access").info("GET /")
    assert lines(stream) == []


def test_python_warnings_are_lines_too(configure: Configure) -> None:
    stream = configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning" in lines(stream)[0]["event"]


def test_the_level_is_respected(configure: Configure) -> None:
    stream = configure("warning")
    structlog.get_logger().info("quiet")
    logging.getLogger("my.module").info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_work_binds_its_ids_to_its_own_lines_only(configure: Configure) -> None:
    stream = configure()
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with traced(request_id="message-1", traceparent=parent):
        structlog.get_logger().info("handled")
        logging.getLogger("my.module").warning("seen")
        assert (current_request_id(), current_traceparent()) == ("message-1", parent)
    structlog.get_logger().info("idle")
    handled, seen, idle = lines(stream)
    for line in (handled, seen):
        assert (line["request_id"], line["trace_id"]) == ("message-1", parent[3:35])
    assert "request_id" not in idle
    assert current_traceparent() is None


def test_a_line_break_in_a_value_starts_no_second_line(configure: Configure) -> None:
    for human in (False, True):
        stream = configure(human=human)
        structlog.get_logger().info("a\r\nFAKE line", path="/x\r\nFAKE\u2028\x1b[2J")
        logging.getLogger("my.module").warning("b\nFAKE")
        assert len(stream.getvalue().splitlines()) == 2
        assert "\x1b[2J" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail to ada.lovelace+x@mail.example failed", "mail to [mail] failed"),
        ('duplicate key: Key (email)=("ada@mail.example")', 'duplicate key: Key (email)=("[mail]")'),
        (f"token {JWT} refused", "token [jwt] refused"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [bearer]"),
        ("Authorization: Basic d2ViOg==", "Authorization: Basic [basic]"),
        ("GET /reset?token=s3cret&x=1 HTTP/1.1", "GET /reset[query] HTTP/1.1"),
        ("cannot reach amqp://user:pa55@host:5672/v", "cannot reach amqp://[userinfo]@host:5672/v"),
        ("postgresql://user:p@ss@host/db", "postgresql://[userinfo]@host/db"),
        ("secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "secret [webhook]"),
        ("what? nothing to hide, 2 < 3 @ noon", "what? nothing to hide, 2 < 3 @ noon"),
    ],
)
def test_secrets_in_libraries_messages_are_replaced_by_their_kind(text: str, expected: str) -> None:
    assert scrubbed(text) == expected


@pytest.mark.parametrize("key", ["password", "token", "refresh_token", "client_secret", "email", "authorization"])
def test_a_value_under_a_secrets_name_is_never_written(configure: Configure, key: str) -> None:
    stream = configure()
    structlog.get_logger().info("event", **{key: "hunter2"})
    assert "hunter2" not in stream.getvalue()


def test_secrets_inside_of_structures_and_errors_are_found(configure: Configure) -> None:
    stream = configure()
    structlog.get_logger().info("event", row={"to": ["ada@mail.example"]}, error=ValueError("ada@mail.example"))
    assert "ada@" not in stream.getvalue()


def test_a_traceback_is_one_line_and_scrubbed(configure: Configure) -> None:
    stream = configure()
    try:
        raise ValueError("for ada@mail.example")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("my.module").exception("failed too")
    for line in lines(stream):
        assert line["exception"].endswith("ValueError: for [mail]")
        assert line["exception"].startswith("Traceback")


def test_a_value_that_is_not_json_is_written_as_text(configure: Configure) -> None:
    stream = configure()
    structlog.get_logger().info("event", value=1j)
    assert lines(stream)[0]["value"] == "1j"


def test_by_default_lines_go_to_standard_error(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    configure_logging("orders", "api")
    structlog.get_logger().info("here")
    captured = capsys.readouterr()
    assert (captured.out, json.loads(captured.err)["event"]) == ("", "here")
    assert not sys.stderr.isatty()


ROLE = """
import sys
import common.cli.roles
from common.observability.logs import configure_logging
import structlog
configure_logging("orders", "relay", human=True)
try:
    raise ValueError("plain")
except ValueError:
    structlog.get_logger("orders").exception("failed")
print("rich" in sys.modules, "structlog" in sys.modules)
import rich.console
"""


def test_a_role_starts_without_rich_and_can_import_it_later() -> None:
    """An override of structlog: see `_import_structlog_without_rich`."""
    role = subprocess.run([sys.executable, "-c", ROLE], capture_output=True, text=True, check=True)  # noqa: S603 - this very Python
    assert role.stdout.split() == ["False", "True"]
    assert "ValueError: plain" in role.stderr
