"""Links that turn off one sort of mail without a sign-in (RFC 8058).

A link is made when a mail is written, and stored nowhere. It can't be forged. It does not expire, since people read old
mails.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final
from uuid import UUID

from notifier.models import Preference

_PURPOSE: Final = b"unsubscribe links"
_MAC_BYTES: Final = 16
_PREFERENCES: Final[tuple[Preference, ...]] = ("order_updates", "welcome")
"""By the number that links have for them: append only."""


class UnsubscribeLinks:
    """`key` is the service's, from which the key of the links is derived."""

    def __init__(self, public_url: str, key: bytes) -> None:
        self._base = f"{public_url}/unsubscribe/"
        self._key = hmac.digest(key, _PURPOSE, hashlib.sha256)

    def url(self, user_id: UUID, preference: Preference) -> str:
        claim = bytes([_PREFERENCES.index(preference)]) + user_id.bytes
        return self._base + base64.urlsafe_b64encode(claim + self._mac(claim)).decode()

    def read(self, link: str) -> tuple[UUID, Preference] | None:
        """Whose mails, and which, the last part of a URL turns off. None if it is none of ours."""
        try:
            claim_and_mac = base64.b64decode(link, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        claim, mac = claim_and_mac[:-_MAC_BYTES], claim_and_mac[-_MAC_BYTES:]
        if len(claim) != 17 or not hmac.compare_digest(mac, self._mac(claim)):
            return None
        return UUID(bytes=claim[1:]), _PREFERENCES[claim[0]]

    def _mac(self, claim: bytes) -> bytes:
        return hmac.digest(self._key, claim, hashlib.sha256)[:_MAC_BYTES]
