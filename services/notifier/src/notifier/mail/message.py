"""E-mail messages (RFC 5322), encoded in ASCII, which every server accepts."""

from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final
from uuid import UUID

from notifier.delivery.errors import Refused

_ASCII: Final = SMTP.clone(cte_type="7bit", utf8=False)


@dataclass(frozen=True, slots=True)
class Mail:
    sender: str
    recipient: str
    content: bytes


def build_mail(
    *,
    sender: Address,
    name: str,
    email: str,
    subject: str,
    body: str,
    message_id: UUID,
    date: datetime,
) -> Mail:
    """The same arguments give the same bytes, `Message-ID` included, so that receivers can detect a repeated mail.

    `name` and `subject` must be single lines. Raises `Refused` for an invalid address.
    """
    message = EmailMessage(policy=_ASCII)
    try:
        message["From"] = sender
        message["To"] = Address(display_name=name, addr_spec=email)
        message["Subject"] = subject
        message["Date"] = format_datetime(date)
        message["Message-ID"] = f"<{message_id}@{sender.domain}>"
        # RFC 3834 §5: stops automatic replies.
        message["Auto-Submitted"] = "auto-generated"
        # Not base64, which Python prefers for some scripts and which spam filters distrust.
        message.set_content(body, cte="7bit" if body.isascii() else "quoted-printable")
        content = message.as_bytes()
    except (ValueError, IndexError, MessageError) as error:  # the library's address parser raises any of these
        raise Refused(f"invalid address: {type(error).__name__}") from None
    return Mail(sender.addr_spec, email, content)
