"""One log line per request.

JSON lines are formatted here and not by structlog, which takes ten times as long, a fifth of a small request's whole
time. The line is the same either way.
"""

from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final, TextIO

import structlog

from common.observability.log_limit import LineLimit
from common.observability.log_processors import scrubbed, timestamp
from common.observability.trace import Trace

_NAME: Final = "common.request"
_MOST_REFUSED: Final = 1000
"""Lines a minute of requests that were refused with the same status. Anybody can cause them."""
_log = structlog.get_logger(_NAME)


class RequestLog:
    """Writes request lines to the stream that `common.observability.logs.configure_logging` sets."""

    def __init__(self) -> None:
        self._stream: TextIO | None = None
        self._origin = ""
        self._refused = LineLimit(most=_MOST_REFUSED)

    def configure(self, service: str, role: str, stream: TextIO, *, direct: bool) -> None:
        self._stream = stream if direct else None
        self._refused = LineLimit(most=_MOST_REFUSED)
        self._origin = f'"logger":"{_NAME}","service":{quoted(service)},"role":{quoted(role)},'

    def write(
        self, trace: Trace, *, method: str, route: str, status: int, ms: float, principal: Any = None, path: str = ""
    ) -> None:
        """Writes one line. `route` is the template that matched, `path` the path without its query where none did.

        `status` is 0 where no answer was sent. A `principal` has a `subject` and a `client_id`.
        """
        if 400 <= status < 500 and not self._refused.admits(f"request {status}", "info"):
            return
        if self._stream is None or status >= 500:
            fields: dict[str, Any] = {"method": method, "route": route, "status": status, "ms": round(ms, 1)}
            if principal:
                fields |= {"subject": principal.subject, "client_id": principal.client_id}
            if path:
                fields["path"] = path
            (_log.warning if status >= 500 else _log.info)("request", **fields)
            return
        caller = (
            f'"subject":{quoted(principal.subject)},"client_id":{quoted(principal.client_id)},' if principal else ""
        )
        where = f'"path":{quoted(scrubbed(path))},' if path else ""
        # Methods and ids need no escaping: the server and `new_trace` accept only safe characters.
        self._stream.write(
            f'{{"event":"request","method":"{method}","route":{quoted(route)},"status":{status},"ms":{ms:.1f},'
            f'{caller}{where}"level":"info",{self._origin}"request_id":"{trace.request_id}",'
            f'"trace_id":"{trace.trace_id}","timestamp":"{timestamp()}"}}\n'
        )


request_log: Final = RequestLog()
"""One per process, like standard error."""
