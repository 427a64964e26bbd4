"""Recovery codes: for people who have lost their authenticator app. Shown once, stored as hashes, good once each."""

import base64
import hashlib
import secrets
from typing import Final

HOW_MANY: Final = 10
_BYTES: Final = 15
_GROUP: Final = 6


def new_codes() -> list[str]:
    """Codes of 120 random bits, as four groups of letters and digits.

    So many bits that a plain hash protects them: OWASP ASVS 5.0 §6.5.2 asks for a slow one below 112.
    """
    return [_grouped(base64.b32encode(secrets.token_bytes(_BYTES)).decode().lower()) for _ in range(HOW_MANY)]


def digest(code: str) -> bytes:
    """The hash to store, or to look for. Case, hyphens and spaces do not matter."""
    return hashlib.sha256("".join(code.replace("-", " ").split()).lower().encode()).digest()


def _grouped(text: str) -> str:
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))
