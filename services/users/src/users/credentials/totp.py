"""One-time codes of authenticator apps: RFC 6238 with SHA-1, six digits and steps of 30 seconds, as all apps do."""

import hmac
from datetime import datetime
from typing import Final

import pyotp

STEP: Final = 30
"""Seconds."""
TOLERANCE: Final = 1
"""Steps by which the clocks of person and server may differ, to either side (RFC 6238 §5.2)."""
_ISSUER: Final = "Waybill"


def new_secret() -> str:
    """160 random bits in base32, the form in which people type it (RFC 4226 §4 R6)."""
    return pyotp.random_base32()


def otpauth_uri(secret: str, *, account: str) -> str:
    """What a QR code for authenticator apps holds. `account` is the name that the app shows."""
    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=_ISSUER)


def matching_step(secret: str, code: str, *, now: datetime, after: int | None) -> int | None:
    """The time step whose code this is, if it is later than `after` and within the tolerance.

    Of two steps with the same code it is the later one, so that no code is good twice.
    """
    current = int(now.timestamp()) // STEP
    otp, found = pyotp.TOTP(secret), None
    for step in range(current - TOLERANCE, current + TOLERANCE + 1):
        if hmac.compare_digest(otp.generate_otp(step), code) and (after is None or step > after):
            found = step
    return found
