"""E-mail messages (RFC 5322), encoded in ASCII, which every server accepts."""

import re
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final
from uuid import UUID

from notifier.delivery.errors import Refused
from notifier.mail.rendering import MailText

_ASCII: Final = SMTP.clone(cte_type="7bit", utf8=False)
_ATOMS: Final = re.compile(r"[\w!#$%&'*+/^`{|}~ -]+", re.ASCII)
"""A display name that needs neither quotes nor an encoded word, and looks like none (RFC 5322 §3.2.3)."""
_LINE: Final = 76


@dataclass(frozen=True, slots=True)
class Mail:
    sender: str
    recipient: str
    content: bytes


def build_mail(
    text: MailText,
    *,
    sender: Address,
    name: str,
    email: str,
    message_id: UUID,
    date: datetime,
    unsubscribe_url: str | None = None,
) -> Mail:
    """The same arguments give the same bytes, `Message-ID` included, so that receivers can detect a repeated mail.

    `name` and the subject must be single lines. Raises `Refused` for an invalid address.
    """
    message = EmailMessage(policy=_ASCII)
    try:
        recipient = Address(addr_spec=email).addr_spec
        recipient.encode("ascii")
        message["Subject"] = text.subject
        message["Date"] = format_datetime(date)
        message["Message-ID"] = f"<{message_id}@{sender.domain}>"
        # RFC 3834 §5: stops automatic replies.
        message["Auto-Submitted"] = "auto-generated"
        # The last alternative is the one preferred (RFC 2046 §5.1.4).
        message.set_content(text.text, cte=_encoding(text.text))
        message.add_alternative(text.html, subtype="html", cte=_encoding(text.html))
        message.set_boundary(f"part-{message_id}")
        content = message.as_bytes()
    except (ValueError, IndexError, MessageError) as error:  # the library's address parser raises any of these
        raise Refused(f"invalid address: {type(error).__name__}") from None
    # Written here, since the library refolds a name so that it holds several addresses, and encodes a long URL.
    head = [_address_line("From", sender.display_name, sender.addr_spec), _address_line("To", name, recipient)]
    if unsubscribe_url is not None:  # RFC 8058 §3.1
        head += [f"List-Unsubscribe: <{unsubscribe_url}>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click"]
    return Mail(sender.addr_spec, recipient, "".join(f"{line}\r\n" for line in head).encode("ascii") + content)


def _address_line(field: str, name: str, address: str) -> str:
    """One address. Python before 3.13.1 loses the quotes of a name that it folds, and commas then separate addresses.

    So a long name, or one with more than atoms, becomes encoded words (RFC 2047), which need no quotes.
    """
    line = f"{field}: {name} <{address}>" if name else f"{field}: {address}"
    if not name or (_ATOMS.fullmatch(name) and len(line) <= _LINE):
        return line
    words = Header(name, "utf-8", header_name=field, maxlinelen=_LINE).encode(linesep="\r\n")
    return f"{field}: {words}\r\n <{address}>"


def _encoding(body: str) -> str:
    """Not base64, which Python prefers for some scripts and which spam filters distrust."""
    return "7bit" if body.isascii() else "quoted-printable"
