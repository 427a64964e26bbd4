"""The texts of mails."""

from typing import Any
from uuid import uuid4

import pytest

from notifier.mail import texts
from notifier.mail.money import format_money
from notifier.models import TITLES, Kind

ORDER_ID = uuid4()
TOTAL: dict[str, Any] = {"total": {"amount": 123456, "currency": "EUR"}}


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (1234, "EUR", "12.34 EUR"),
        (5, "EUR", "0.05 EUR"),
        (0, "EUR", "0.00 EUR"),
        (-250, "EUR", "-2.50 EUR"),
        (2**53 - 1, "EUR", "90071992547409.91 EUR"),
        (1200, "JPY", "1200 JPY"),
        (1200, "KWD", "1.200 KWD"),
        (1200, "CLF", "0.1200 CLF"),
    ],
)
def test_an_amount_has_as_many_decimals_as_its_currency(amount: int, currency: str, text: str) -> None:
    assert format_money({"amount": amount, "currency": currency}) == text


@pytest.mark.parametrize("kind", [kind for kind in TITLES if kind.startswith("order_")])
def test_every_order_mail_names_the_order_and_shows_the_total(kind: Kind) -> None:
    text = texts.order_update(kind, "Ann", ORDER_ID, TOTAL)
    assert str(ORDER_ID) in text.body
    assert str(ORDER_ID) in text.subject
    assert "1234.56 EUR" in text.body
    assert "Hello Ann," in text.body
    for word in ("welcome", "password", "verify", "token"):
        assert word not in text.body.lower()


def test_the_mail_of_a_shipped_order_has_carrier_and_tracking_number() -> None:
    data = TOTAL | {"carrier": "DHL", "tracking_number": "JD014600003"}
    body = texts.order_update("order_shipped", "Ann", ORDER_ID, data).body
    assert "DHL" in body
    assert "JD014600003" in body


def test_the_mail_of_a_placed_order_lists_its_lines() -> None:
    line = {"name": "Desk lamp", "quantity": 3, "unit_price": {"amount": 999, "currency": "EUR"}}
    assert (
        "3 x Desk lamp, 9.99 EUR each"
        in texts.order_update("order_placed", "A", ORDER_ID, TOTAL | {"lines": [line]}).body
    )


@pytest.mark.parametrize("reason", ["Out of stock", None])
def test_the_mail_of_a_cancelled_order_has_the_reason_if_there_is_one(reason: str | None) -> None:
    body = texts.order_update("order_cancelled", "Ann", ORDER_ID, TOTAL | {"reason": reason}).body
    assert ("Reason:" in body) == (reason is not None)
    assert (reason or "") in body


def test_a_welcome_mail_says_welcome_and_requests_nothing() -> None:
    body = texts.welcome("Ann").body
    assert "welcome" in body
    for word in ("password", "verify", "token"):
        assert word not in body.lower()


def test_security_mails_say_what_they_are_about() -> None:
    assert "password" in texts.password_changed("Ann").body
    assert "password" in texts.secret_link("reset_password", "https://x.test/?token=t").body
    assert "verify" in texts.secret_link("verify_email", "https://x.test/?token=t").body


def test_a_mail_contains_its_secret_link_once() -> None:
    assert texts.secret_link("verify_email", "https://x.test/?token=t").body.count("?token=") == 1


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("Ann", "Hello Ann,"),
        ("Ann\r\nBcc: eve@example.com", "Hello,"),
        ("Ann\r\n\r\nPay here", "Hello Ann Pay here,"),
        ("  Ann\t\x1b[31m \u2028Lee ", "Hello Ann [31m Lee,"),
        ("Dr. Ann Lee", "Hello Dr. Ann Lee,"),
        ("Win at https://spam.example", "Hello,"),
        ("www.spam.example", "Hello,"),
        ("ann@example.com", "Hello,"),
        ("\u202egnp.eman", "Hello,"),
        ("דנה", "Hello דנה,"),
        ("می\N{ZERO WIDTH NON-JOINER}خواهم", "Hello می\N{ZERO WIDTH NON-JOINER}خواهم,"),
        ("\x00\x07", "Hello,"),
    ],
)
def test_a_name_is_shown_on_one_line_and_never_as_a_link(name: str, greeting: str) -> None:
    assert texts.greeting(name) == greeting
