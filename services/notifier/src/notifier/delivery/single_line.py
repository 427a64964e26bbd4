"""Untrusted text as one printable line, for mails and for the causes of failures."""

from typing import Final

_JOINERS: Final = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"


def single_line(text: str) -> str:
    """Keeps printable characters and single spaces. Joiners stay: some scripts can't be written without them."""
    return " ".join("".join(char if char.isprintable() or char in _JOINERS else " " for char in text).split())
