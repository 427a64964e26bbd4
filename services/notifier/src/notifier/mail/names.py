"""Names of people as mails show them.

Sign-up is open, and anyone may sign up with a stranger's address. So a name must not put a link or a telephone number
into our mails: mail programs make links of what looks like one.
"""

import re
import unicodedata
from typing import Final

from notifier.delivery.single_line import single_line

_DOTS: Final = str.maketrans(dict.fromkeys("。۔।܁܂᠃⸼", "."))
"""Full stops that NFKC does not turn into a dot. Browsers read the first as one in a host name (RFC 5895 §2)."""
_SLASHES: Final = str.maketrans(dict.fromkeys("∕⁄⧸╱꞉ː։", "/"))
_LINK: Final = re.compile(r"[/@:\\]|\w\.\w|\b(?:https?|www)\b|(?:\d[\s().-]*){6}", re.IGNORECASE)


def display_name(name: str) -> str:
    """The name on one printable line; empty if it has anything like an address, a link or a telephone number."""
    shown = single_line(name)
    return "" if _LINK.search(_skeleton(shown)) else shown


def _skeleton(text: str) -> str:
    """The text as links are recognised in it: compatible forms unified, without marks and invisible characters."""
    unified = unicodedata.normalize("NFKC", text).translate(_DOTS).translate(_SLASHES)
    return "".join(char for char in unified if unicodedata.category(char) not in {"Mn", "Me", "Cf"})
