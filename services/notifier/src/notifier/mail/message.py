"""A text as an e-mail (RFC 5322), in ASCII on the wire: any server takes it."""

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


def mail(
    *,
    sender: Address,
    name: str,
    email: str,
    subject: str,
    body: str,
    message_id: UUID,
    date: datetime,
) -> Mail:
    """The same arguments make the same bytes: a second sending can be told by its `Message-ID`.

    `name` and `subject` are single lines. Raises `Refused` for an address that no mail can be sent to.
    """
    message = EmailMessage(policy=_ASCII)
    try:
        message["From"] = sender
        message["To"] = Address(display_name=name, addr_spec=email)
        message["Subject"] = subject
        message["Date"] = format_datetime(date)
        message["Message-ID"] = f"<{message_id}@{sender.domain}>"
        # RFC 3834 §5: holiday responders and the like keep quiet.
        message["Auto-Submitted"] = "auto-generated"
        # Not base64, which Python would prefer for some scripts: spam filters take it for hiding something.
        message.set_content(body, cte="7bit" if body.isascii() else "quoted-printable")
        content = message.as_bytes()
    except (ValueError, IndexError, MessageError) as error:  # the library's parser of addresses raises any of them
        raise Refused(f"no mail can be made for this address: {type(error).__name__}") from None
    return Mail(sender.addr_spec, email, content)
