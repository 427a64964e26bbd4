"""Mails as they are sent over the wire."""

import email.policy
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import getaddresses
from html import escape
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery.errors import Refused
from notifier.delivery.single_line import single_line
from notifier.mail.message import Mail, build_mail
from notifier.mail.rendering import MailText

from .mailbox import part_of

ID = UUID("01a2054c-a789-745f-8420-744221d467b8")


def built(**fields: Any) -> Mail:
    defaults: dict[str, Any] = {
        "sender": Address("Waybill", addr_spec="no-reply@waybill.invalid"),
        "name": "Ann",
        "email": "ann@example.com",
        "message_id": ID,
        "date": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    text = fields.pop("text", MailText("Hello", "Hello\n", "<p>Hello</p>\n"))
    return build_mail(text, **(defaults | fields))


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
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert "List-Unsubscribe" not in message


def test_a_mail_that_can_be_turned_off_says_how() -> None:
    url = f"https://waybill.invalid/unsubscribe/{'x' * 60}"
    assert f"\r\nList-Unsubscribe: <{url}>\r\n".encode() in built(unsubscribe_url=url).content
    assert parsed(built(unsubscribe_url=url).content)["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


@pytest.mark.parametrize(
    "name",
    [
        "Ann",
        "Dr. O'Neil",
        "Ännchen Müller",
        "日本 太郎",
        "דנה כהן",
        'Ann "the Lamp" Lee',
        "Lee, Ann; (home) <x>",
        "é" * 100,
        "A" * 100,
        "=?utf-8?q?x?=",
        "Smith, John (Accounting Department, Building Four) and Partners Limited, London Office, United Kingd",
        "Mallory <root@example.com>, and many more words until the line has to be folded, <x>",
    ],
)
def test_any_name_arrives_unchanged_in_ascii_with_short_lines(name: str) -> None:
    text = MailText("Hello", f"Hello {name},\n", f"<p>Hello {escape(name)},</p>\n")
    content = built(name=name, text=text).content
    assert content.isascii()
    head, _, rest = content.partition(b"\r\n\r\n")
    assert max(map(len, head.split(b"\r\n"))) <= 78
    assert max(map(len, rest.split(b"\r\n"))) <= 998
    message = parsed(content)
    # Not the new parser, which puts spaces between encoded words in Python 3.11 (against RFC 2047 §6.2).
    field = message_from_bytes(content)["To"]
    [(shown, address)] = getaddresses([field])
    assert (str(make_header(decode_header(shown))), address) == (name, "ann@example.com")
    assert part_of(message, "plain") == f"Hello {name},\r\n"
    assert part_of(message, "html") == f"<p>Hello {escape(name)},</p>\r\n"


@given(st.text(max_size=100))
def test_no_name_adds_a_header_or_a_recipient(name: str) -> None:
    content = built(name=single_line(name)).content
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
