"""Keeps what a message's properties may hold from ending the connection that delivers it.

AMQP 0-9-1 promises no encoding, and brokers pass on what they are given. A text that is not UTF-8, a time past the year
9999, a field of an unknown type or a table nested a thousand deep makes the driver's decoder (pamqp) raise inside the
connection's reader. That ends the connection; the broker delivers again, to the same end, and each time counts against
all messages in hand. So both places of the decoder where foreign bytes come in are replaced: such a message arrives
without properties, but with the bytes of which they were to be made.
"""

from typing import Final

from pamqp import decode, header
from pamqp.commands import Basic

UNREADABLE: Final = "x-waybill-unreadable"
"""The header that holds those bytes."""
_PREFIX: Final = 12
"""Class, weight and body size, which the broker writes."""

_read_header = header.ContentHeader.unmarshal


class _Garbled(str):
    __slots__ = ()


def _short_text(value: bytes) -> tuple[int, str]:
    """Of a routing key, too, which stands before the properties and has to be got over."""
    try:
        return decode.short_str(value)
    except UnicodeDecodeError:
        end = value[0] + 1
        return end, _Garbled(value[1:end].decode(errors="backslashreplace"))


def _read_leniently(self: header.ContentHeader, data: bytes) -> None:
    try:
        _read_header(self, data)
    except Exception:  # noqa: BLE001 - whatever it is, it is the sender's fault
        is_readable = False
    else:
        is_readable = not any(isinstance(value, _Garbled) for _, value in self.properties)
    if not is_readable:
        self.properties = Basic.Properties(headers={UNREADABLE: bytearray(data[_PREFIX:])})


decode.METHODS["shortstr"] = _short_text
header.ContentHeader.unmarshal = _read_leniently  # type: ignore[method-assign]
