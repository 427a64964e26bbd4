"""Text for one line: what people, products and clients are called."""

import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI_CONTROLS: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
_FILLERS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and a symbol by category, drawn as nothing."""


def is_line(text: str) -> bool:
    """Whether there is something to see, on one line.

    Refuses control characters and line breaks (names go into mail headers and onto terminals) and directional
    overrides (one name could pass for another).
    """
    if text.isascii():
        return text.isprintable() and not text.isspace() and text != ""
    return any(unicodedata.category(char)[0] in "LMNPS" and char not in _FILLERS for char in text) and not any(
        unicodedata.category(char) in _REFUSED_CATEGORIES or unicodedata.bidirectional(char) in _BIDI_CONTROLS
        for char in text
    )


def _line(text: str) -> str:
    if not is_line(text):
        raise PydanticCustomError("line_of_text", "Must be one line with something to see, without control characters")
    return text


Line = Annotated[str, AfterValidator(_line)]
