"""Text that fits on one line: the names of people, products and clients."""

import unicodedata
from typing import Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI_CONTROLS: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
_FILLERS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and a symbol by their category, but invisible."""


def is_single_line(text: str) -> bool:
    """Whether the text is one line with a visible character.

    False for control characters and line breaks, because names go into mail headers and to terminals, and for
    directional overrides, because with them one name can look like another.
    """
    if text.isascii():
        return text.isprintable() and not text.isspace() and text != ""
    return any(unicodedata.category(char)[0] in "LMNPS" and char not in _FILLERS for char in text) and not any(
        unicodedata.category(char) in _REFUSED_CATEGORIES or unicodedata.bidirectional(char) in _BIDI_CONTROLS
        for char in text
    )


def _single_line(text: str) -> str:
    if not is_single_line(text):
        raise PydanticCustomError("line_of_text", "Must be one line with a visible character and no control characters")
    return text


SINGLE_LINE: Final = AfterValidator(_single_line)
"""Put it after a `max_length`: to check a mebibyte of letters takes 60 ms."""
