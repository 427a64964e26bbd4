"""What a page's form carries to the next request, sealed: no one can read, change or make it, or use it in another
browser. So it is the token against cross-site requests, too.
"""

import base64
import hashlib
import hmac
from typing import Final, Literal

from cryptography.fernet import Fernet, InvalidToken
from pydantic import BaseModel, ConfigDict

from auth.errors import FormExpired

LIFETIME: Final = 600
"""Seconds between showing a form and sending it."""


class FormState(BaseModel):
    """`query` is the authorization request. `is_fresh`: the person has just signed in for it.

    `username` and `password` go from the page that asks for a password to the one that asks for a code.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    page: Literal["sign_in", "code", "consent", "sign_out"]
    query: str | None = None
    is_fresh: bool = False
    username: str = ""
    password: str = ""


class FormSeal:
    def __init__(self, secret: bytes) -> None:
        self._secret = hmac.digest(secret, b"forms", hashlib.sha256)

    def seal(self, state: FormState, *, cookie: str) -> str:
        """For this browser only: `cookie` is its secret."""
        return self._fernet(cookie).encrypt(state.model_dump_json().encode()).decode()

    def open(self, text: str | None, *, cookie: str, page: str) -> FormState:
        """Raises `FormExpired` for anything but a state of this page, sealed for this browser not long ago."""
        if text is None:
            raise FormExpired
        try:
            state = FormState.model_validate_json(self._fernet(cookie).decrypt(text, ttl=LIFETIME))
        except (InvalidToken, ValueError):
            raise FormExpired from None
        if state.page != page:
            raise FormExpired
        return state

    def _fernet(self, cookie: str) -> Fernet:
        return Fernet(base64.urlsafe_b64encode(hmac.digest(self._secret, cookie.encode(), hashlib.sha256)))
