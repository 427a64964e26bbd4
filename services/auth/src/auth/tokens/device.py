"""Known devices: a refresh token or a browser's long-lived cookie proves that a person has signed in there before."""

import base64
import binascii
import hmac
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_PURPOSE: Final = b"waybill known device"
_CONTENT: Final = 16 + 16 + 8
_BYTES: Final = _CONTENT + 32


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device on which this person has signed in before. `id` distinguishes it from others of the person."""

    user_id: uuid.UUID
    id: uuid.UUID


def seal(device: KnownDevice, secret: bytes, *, now: datetime) -> str:
    """The value of a cookie that proves the device. It signs nobody in."""
    raw = device.user_id.bytes + device.id.bytes + int(now.timestamp() * 1_000_000).to_bytes(8)
    return base64.urlsafe_b64encode(raw + _mac(raw, secret)).rstrip(b"=").decode()


def unseal(text: str, secret: bytes) -> tuple[KnownDevice, datetime] | None:
    """The device, and when it was sealed. None for anything but the text of `seal`."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != _BYTES or not hmac.compare_digest(raw[_CONTENT:], _mac(raw[:_CONTENT], secret)):
        return None
    device = KnownDevice(uuid.UUID(bytes=raw[:16]), uuid.UUID(bytes=raw[16:32]))
    return device, datetime.fromtimestamp(int.from_bytes(raw[32:_CONTENT]) / 1_000_000, UTC)


def _mac(raw: bytes, secret: bytes) -> bytes:
    return hmac.digest(hmac.digest(secret, _PURPOSE, "sha256"), raw, "sha256")
