"""Known devices: a refresh token or a browser's long-lived cookie proves that a person has signed in there before."""

import base64
import binascii
import hmac
import uuid
from dataclasses import dataclass
from typing import Final

_PURPOSE: Final = b"waybill known device"
_BYTES: Final = 16 + 16 + 32


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device on which this person has signed in before. `id` tells it from others of the person."""

    user_id: uuid.UUID
    id: uuid.UUID


def seal(device: KnownDevice, secret: bytes) -> str:
    """The value of a cookie that proves the device. It signs nobody in."""
    raw = device.user_id.bytes + device.id.bytes
    return base64.urlsafe_b64encode(raw + _mac(raw, secret)).rstrip(b"=").decode()


def unseal(text: str, secret: bytes) -> KnownDevice | None:
    """None for anything but the text of `seal`."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != _BYTES or not hmac.compare_digest(raw[32:], _mac(raw[:32], secret)):
        return None
    return KnownDevice(uuid.UUID(bytes=raw[:16]), uuid.UUID(bytes=raw[16:32]))


def _mac(raw: bytes, secret: bytes) -> bytes:
    return hmac.digest(hmac.digest(secret, _PURPOSE, "sha256"), raw, "sha256")
