"""Makes the driver's decoder (pamqp) accept any message properties and routing keys.

AMQP 0-9-1 prescribes no encoding, and brokers pass on what they receive. Text that is not UTF-8, a time after the year
9999, a field of an unknown type or a table nested a thousand levels deep makes pamqp raise inside the connection's
reader. That ends the connection; the broker redelivers the message, with the same result, and each time it counts
against all unacknowledged messages. `install` replaces the two methods where such bytes arrive: the message is then
delivered without properties, but with the bytes that could not be decoded.
"""

from typing import Final

from pamqp import base, decode, header
from pamqp.commands import Basic

UNREADABLE: Final = "x-waybill-unreadable"
"""The header that holds those bytes."""
_PREFIX: Final = 12
"""Bytes of class, weight and body size, which the broker writes."""

_read_header: Final = header.ContentHeader.unmarshal
_read_method: Final = base.Frame.unmarshal


def install() -> None:
    """Replaces the two methods for the whole process. Safe to repeat."""
    header.ContentHeader.unmarshal = _header  # type: ignore[method-assign]
    Basic.Deliver.unmarshal = _deliver  # type: ignore[method-assign]


def _header(self: header.ContentHeader, data: bytes) -> None:
    try:
        _read_header(self, data)
    except Exception:  # noqa: BLE001 - any error is the sender's fault
        self.properties = Basic.Properties(headers={UNREADABLE: bytearray(data[_PREFIX:])})


def _deliver(self: base.Frame, data: bytes) -> None:
    """A routing key may hold any bytes, too."""
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
