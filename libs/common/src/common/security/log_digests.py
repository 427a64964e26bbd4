"""Keyed digests for logs: equal for the same person or network on every replica, and of no use without the key."""

import hmac
from typing import Final

_PURPOSE: Final = b"waybill log digests"
_BYTES: Final = 8


class LogDigests:
    """An unkeyed hash of an e-mail or IPv4 address is found by trying all of them."""

    def __init__(self, secret: bytes) -> None:
        """`secret` may have another use: the key is derived from it."""
        self._key = hmac.digest(secret, _PURPOSE, "sha256")

    def of(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), "sha256")[:_BYTES].hex()
