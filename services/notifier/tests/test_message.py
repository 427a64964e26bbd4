"""Mails as they are sent over the wire."""

import email.policy
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parseaddr
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery.errors import Refused
from notifier.mail.message import Mail, build_mail
from notifier.mail.texts import display_name

ID = UUID("01a2054c-a789-745f-8420-744221d467b8")


def built(**fields: Any) -> Mail:
    defaults: dict[str, Any] = {
        "sender": Address("Waybill", addr_spec="no-reply@waybill.invalid"),
        "name": "Ann",
        "email": "ann@example.com",
        "subject": "Hello",
        "body": "Hello\n",
        "message_id": ID,
        "date": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return build_mail(**(defaults | fields))


def parsed(content: bytes) -> EmailMessage:
    return BytesParser(EmailMessage, policy=email.policy.default).parsebytes(content)


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert built() == built()


def test_a_mail_has_the_headers_it_needs() -> None:
    message = parsed(built().content)
    assert message["From"] == "Waybill <no-reply@waybill.invalid>"
    assert message["To"] == "Ann <ann@example.com>"
    assert message["Date"] == "Fri, 02 Jan 2026 03:04:05 +0000"
    assert message["Message-ID"] == f"<{ID}@waybill.invalid>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "text/plain"


@pytest.mark.parametrize(
    "name", ["Ännchen Müller", "日本 太郎", "דנה כהן", 'Ann "the Lamp" Lee', "Lee, Ann; (home) <x>", "é" * 100]
)
def test_any_name_arrives_unchanged_in_ascii_with_short_lines(name: str) -> None:
    content = built(name=name, body=f"Hello {name},\n").content
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 78
    message = parsed(content)
    # Not the new parser, which puts spaces between encoded words in Python 3.11 (against RFC 2047 §6.2).
    recipient = str(make_header(decode_header(message_from_bytes(content)["To"])))
    assert parseaddr(recipient) == (name, "ann@example.com")
    assert message.get_content() == f"Hello {name},\r\n"


@given(st.text(max_size=100))
def test_no_name_adds_a_header_or_a_recipient(name: str) -> None:
    content = built(name=display_name(name)).content
    head, _, _ = content.partition(b"\r\n\r\n")
    fields = [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith(b" ")]
    assert sorted(fields) == sorted(
        [
            b"From",
            b"To",
            b"Subject",
            b"Date",
            b"Message-ID",
            b"Auto-Submitted",
            b"MIME-Version",
            b"Content-Type",
            b"Content-Transfer-Encoding",
        ]
    )
    [recipient] = parsed(content)["To"].addresses
    assert recipient.addr_spec == "ann@example.com"


@pytest.mark.parametrize(
    "address",
    ["", "@", "ann", "ann@", "a b@example.com", "ann@example.com\r\nX: y", "ännchen@example.com", "a@b.com, c@d.com"],
)
def test_anything_but_a_single_ascii_address_is_refused(address: str) -> None:
    with pytest.raises(Refused):
        built(email=address)
