"""uvicorn's HTTP/1.1 protocol, except that an offer to upgrade is ignored (RFC 9110 §7.8).

The parser expects another protocol after the head of such a request. uvicorn then loses the body and reads it as the
next request (Kludex/uvicorn#2722). Over http, Apache's HttpClient offers TLS/1.2 and Java's own client h2c by default.
"""

import asyncio
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_TAKES_NOTHING: Final = 30.0
"""Seconds for which a client may take nothing of an answer that is larger than the buffers."""
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class _Parser(httptools.HttpRequestParser):
    """Parses a second head after one with an offer: without the offer, and with the same body."""

    def __init__(self, protocol: "UpgradeIgnoringProtocol") -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                framing = [b"%b: %b\r\n" % header for header in self._protocol.headers if header[0] in _FRAMING]
                self._protocol.in_second_head = True
                super().feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
                self._protocol.in_second_head = False
                data = data[offer.args[0] :]
            else:
                return


class UpgradeIgnoringProtocol(HttpToolsProtocol):
    """Also gives up a client that takes nothing of its answer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.in_second_head = False
        self.parser = _Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
        self._giving_up: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Ends the connection of a client that takes nothing, so that it holds neither memory nor a stop."""
        super().pause_writing()
        self._giving_up = self.loop.call_later(_TAKES_NOTHING, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_giving_up()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_giving_up()

    def _stop_giving_up(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def on_message_begin(self) -> None:
        if not self.in_second_head:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.in_second_head:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_second_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.in_second_head:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()
