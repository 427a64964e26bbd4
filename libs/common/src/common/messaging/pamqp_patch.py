"""Keeps what a message's properties may hold from ending the connection that delivers it.

AMQP 0-9-1 promises no encoding, and brokers pass on what they are given. A text that is not UTF-8, a time past the year
9999, a field of an unknown type or a table nested a thousand deep makes the driver's decoder (pamqp) raise inside the
connection's reader. That ends the connection; the broker delivers again, to the same end, and each time counts against
all messages in hand. So both places of the decoder where foreign bytes come in are replaced: such a message arrives
without properties, but with the bytes of which they were to be made.
"""

from typing import Final

from pamqp import base, decode, header
from pamqp.commands import Basic

UNREADABLE: Final = "x-waybill-unreadable"
"""The header that holds those bytes."""
_PREFIX: Final = 12
"""Class, weight and body size, which the broker writes."""

_read_header = header.ContentHeader.unmarshal
_read_method = base.Frame.unmarshal


def _header(self: header.ContentHeader, data: bytes) -> None:
    try:
        _read_header(self, data)
    except Exception:  # noqa: BLE001 - whatever it is, it is the sender's fault
        self.properties = Basic.Properties(headers={UNREADABLE: bytearray(data[_PREFIX:])})


def _delivery(self: base.Frame, data: bytes) -> None:
    """A routing key may be anything, too."""
    try:
        _read_method(self, data)
    except UnicodeDecodeError:
        decode.METHODS["shortstr"] = _short_text
        try:
            _read_method(self, data)
        finally:
            decode.METHODS["shortstr"] = decode.short_str


def _short_text(value: bytes) -> tuple[int, str]:
    end = value[0] + 1
    return end, value[1:end].decode(errors="backslashreplace")


header.ContentHeader.unmarshal = _header  # type: ignore[method-assign]
Basic.Deliver.unmarshal = _delivery  # type: ignore[method-assign]
