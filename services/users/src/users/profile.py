"""What a person's name and e-mail address may be. Pure functions that raise pydantic's errors, for every edge alike."""

import re
import unicodedata
from typing import Final

from pydantic_core import PydanticCustomError

MAX_NAME: Final = 100
MAX_EMAIL: Final = 254
"""Characters (RFC 5321 §4.5.3.1.3, less the angle brackets)."""

_ATEXT: Final = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]"
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# RFC 5321 §4.1.2: dot-string @ domain. Quoted local parts and address literals are valid there and used by nobody.
_EMAIL: Final = re.compile(rf"(?=.{{1,64}}@){_ATEXT}+(?:\.{_ATEXT}+)*@(?:{_LABEL}\.)+[a-z]{{2,63}}")

_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI_CONTROLS: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


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
    """The name in NFC, without space around it.

    Refuses control characters and line breaks (a name goes into mail headers), directional overrides (it could pass
    for another) and names in which nothing is visible.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(name) <= MAX_NAME or not any(unicodedata.category(char)[0] in "LMNPS" for char in name):
        raise PydanticCustomError("person_name", "Must have 1 to 100 characters, visible ones among them")
    if any(
        unicodedata.category(char) in _REFUSED_CATEGORIES or unicodedata.bidirectional(char) in _BIDI_CONTROLS
        for char in name
    ):
        raise PydanticCustomError("person_name", "Must not contain control characters")
    return name
