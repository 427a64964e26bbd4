"""What a person's name and e-mail address may be. Pure functions that raise pydantic's errors, for every edge alike."""

import re
import unicodedata
from typing import Final

from pydantic_core import PydanticCustomError

from common.web.single_line import is_single_line

MAX_NAME: Final = 100
MAX_EMAIL: Final = 254
"""Characters (RFC 5321 §4.5.3.1.3, less the angle brackets)."""

_ATEXT: Final = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]"
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# RFC 5321 §4.1.2: dot-string @ domain. Quoted local parts and address literals are valid there and used by nobody.
_EMAIL: Final = re.compile(rf"(?=.{{1,64}}@){_ATEXT}+(?:\.{_ATEXT}+)*@(?:{_LABEL}\.)+[a-z]{{2,63}}")


def email_address(text: str) -> str:
    """The address in the one form that identity is compared by: lower case, local part included.

    ASCII only, which is its own NFC: so no two addresses look alike and yet differ. Checked before lower-casing, which
    turns some non-ASCII letters (KELVIN SIGN) into ASCII ones.
    """
    address = text.lower()
    if not text.isascii() or len(text) > MAX_EMAIL or not _EMAIL.fullmatch(address):
        raise PydanticCustomError(
            "email_address", "Must be an e-mail address in ASCII with a top-level domain of at least two letters"
        )
    return address


def person_name(text: str) -> str:
    """The name in NFC, without space around it."""
    name = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(name) <= MAX_NAME or not is_single_line(name):
        raise PydanticCustomError(
            "person_name", "Must have 1 to 100 characters, visible ones among them, and no control characters"
        )
    return name
