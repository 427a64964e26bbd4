"""Which names and e-mail addresses are valid, and in what form they are stored. Invalid ones raise pydantic's error."""

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
# RFC 5321 §4.1.2: dot-string @ domain. Quoted local parts and address literals, valid there, are refused here.
_EMAIL: Final = re.compile(rf"(?=.{{1,64}}@){_ATEXT}+(?:\.{_ATEXT}+)*@(?:{_LABEL}\.)+[a-z]{{2,63}}")


def email_address(text: str) -> str:
    """The address in the form in which addresses are compared: lower case, local part included.

    ASCII only, so that no two different addresses look alike. Checked before lower-casing, which turns some non-ASCII
    letters (KELVIN SIGN) into ASCII ones.
    """
    address = text.lower()
    if not text.isascii() or len(text) > MAX_EMAIL or not _EMAIL.fullmatch(address):
        raise PydanticCustomError(
            "email_address", "Must be an e-mail address in ASCII with a top-level domain of at least two letters"
        )
    return address


def person_name(text: str) -> str:
    """The name in NFC, without white space around it."""
    name = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(name) <= MAX_NAME or not is_single_line(name):
        raise PydanticCustomError(
            "person_name", "Must have 1 to 100 characters, at least one of them visible, and no control characters"
        )
    return name
