"""The texts of mails, and their HTML."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.mail.money import format_money
from notifier.mail.names import display_name
from notifier.mail.rendering import MailText, render
from notifier.mail.samples import sample
from notifier.models import TITLES, Kind, LinkKind, preference_of

ORDER_ID = "01a2054c-a789-745f-8420-744221d467b8"
ORDER: dict[str, Any] = {"order_id": ORDER_ID, "total": {"amount": 123456, "currency": "EUR"}}
DOCS = Path(__file__).parents[3] / "docs"
REMOTE = {"img", "script", "link", "iframe", "object", "embed", "video", "audio", "source", "form", "base"}


class Reader(HTMLParser):
    """Reads a page as a mail program does: what it shows, and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.shown = ""
        self._hidden = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._hidden = tag in {"style", "title"}
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - the signature is html.parser's
        self._hidden = False

    def handle_data(self, data: str) -> None:
        self.shown += "" if self._hidden else f" {data}"


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


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


@pytest.mark.parametrize("kind", TITLES)
def test_the_html_says_what_the_text_says_and_loads_nothing(kind: Kind) -> None:
    mail = sample(kind)
    page = Reader(mail.html)
    assert page.tags & REMOTE == set()
    assert "url(" not in mail.html
    for link in page.links:
        assert link in mail.text
    said = set(words(mail.text)) - {word for link in page.links for word in words(link)}
    assert said <= set(words(page.shown))
    assert max(map(len, mail.html.splitlines())) < 900
    assert mail.html.count("?token=") == mail.text.count("?token=") == (kind in get_args(LinkKind))
    assert ("/unsubscribe/" in mail.html) == ("/unsubscribe/" in mail.text) == (preference_of(kind) is not None)


def test_the_page_of_mails_has_a_picture_of_each_kind() -> None:
    page = (DOCS / "mails.md").read_text()
    assert re.findall(r"images/mails/(\w+)\.png", page) == list(TITLES)
    assert {file.stem for file in (DOCS / "images/mails").iterdir()} == set(TITLES)
    for kind in TITLES:
        assert f"| `{kind}` | {TITLES[kind]} |" in page


@pytest.mark.parametrize("kind", [kind for kind in TITLES if kind.startswith("order_")])
def test_every_order_mail_names_the_order_and_shows_the_total(kind: Kind) -> None:
    mail = render(kind, name="Ann", data=ORDER)
    assert ORDER_ID in mail.subject
    for body in (mail.text, mail.html):
        assert ORDER_ID in body
        assert "1234.56 EUR" in body
        assert "Hello Ann," in body
        for word in ("welcome", "password", "verify", "token"):
            assert word not in body.lower()


def bodies(kind: Kind, **data: Any) -> tuple[str, str]:
    mail = render(kind, name="Ann", data=ORDER | data)
    return mail.text, Reader(mail.html).shown


def test_order_mails_have_carrier_tracking_number_lines_and_the_reason_of_staff() -> None:
    line = {"name": "Desk lamp", "quantity": 3, "unit_price": {"amount": 999, "currency": "EUR"}}
    for body in bodies("order_shipped", carrier="DHL", tracking_number="JD014600003"):
        assert "DHL" in body
        assert "JD014600003" in body
    for body in bodies("order_placed", lines=[line]):
        assert "3 x Desk lamp" in body
        assert "9.99 EUR each" in body
    for body in bodies("order_cancelled", reason="Out of stock", cancelled_by="staff"):
        assert "Out of stock" in body


@pytest.mark.parametrize("by", ["customer", None])
def test_no_mail_has_what_a_customer_wrote(by: str | None) -> None:
    for body in bodies("order_cancelled", reason="Pay at https://evil.example", cancelled_by=by, note="evil.example"):
        assert "evil" not in body
        assert "Reason" not in body


def test_a_value_forges_neither_markup_nor_a_paragraph() -> None:
    mail = render("order_shipped", data=ORDER | {"carrier": "<b>DHL</b>\n\nPay here", "tracking_number": "&amp;"})
    assert "<b>" not in mail.html
    assert "&lt;b&gt;DHL&lt;/b&gt; Pay here" in mail.html
    assert "&amp;amp;" in mail.html
    assert "<b>DHL</b> Pay here" in mail.text


def test_mails_about_accounts_say_what_they_are_about() -> None:
    said: dict[Kind, str] = {
        "welcome": "welcome",
        "password_changed": "password",
        "reset_password": "password",
        "verify_email": "verify",
        "new_sign_in": "Firefox on Linux",
        "webhook_disabled": "disabled",
        "authenticator_changed": "second factor",
        "account_deactivated": "deactivated",
    }
    for kind, word in said.items():
        assert word in sample(kind).text
    for word in ("password", "verify", "token"):
        assert word not in sample("welcome").text.lower()


@pytest.mark.parametrize("data", [{"webhooks_disabled": "2"}, {}])
def test_a_recovered_account_learns_of_its_disabled_webhooks(data: dict[str, Any]) -> None:
    assert ("webhooks" in render("password_changed", data=data).text) == bool(data)


@pytest.mark.parametrize("agent", ["Win at evil.example/prize", "", None, "Mozilla/5.0 evil．com"])
def test_a_device_is_named_only_if_it_is_known(agent: str | None) -> None:
    mail = render("new_sign_in", data={"device": agent, "occurred_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC)})
    assert "Unknown program" in mail.text
    assert "2 January 2026, 03:04 UTC" in mail.text
    assert "evil" not in mail.html


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Ann", "Ann"),
        ("Ann\r\n\r\nPay here", "Ann Pay here"),
        ("  Ann\t\x1b[31m \u2028Lee ", "Ann [31m Lee"),
        ("Dr. Ann Lee", "Dr. Ann Lee"),
        ("Ann Lee 3rd, 1990", "Ann Lee 3rd, 1990"),
        ("דנה", "דנה"),
        ("می\N{ZERO WIDTH NON-JOINER}خواهم", "می\N{ZERO WIDTH NON-JOINER}خواهم"),
        ("\x00\x07", ""),
        ("Ann\r\nBcc: eve@example.com", ""),
        ("Win at https://spam.example", ""),
        ("www.spam.example", ""),
        ("ann@example.com", ""),
        ("\u202egnp.eman", ""),
        ("evil．com", ""),
        ("evil｡com", ""),
        ("evil。com", ""),
        ("evil․com", ""),
        ("пример．рф", ""),
        ("例え。テスト", ""),
        ("دامنه۔ایران", ""),
        ("evil\N{ZERO WIDTH JOINER}.\N{ZERO WIDTH JOINER}com", ""),
        ("evil.\N{COMBINING ACUTE ACCENT}com", ""),
        ("ｗｗｗ evil", ""),
        ("ＨＴＴＰＳ evil", ""),
        ("evil／prize", ""),
        ("eve＠example", ""),
        ("Call +49 30 123456", ""),
        ("Call ０３０－１２３４５６", ""),
    ],
)
def test_a_name_is_shown_on_one_line_and_never_as_a_link_or_number(name: str, shown: str) -> None:
    assert display_name(name) == shown
    assert render("welcome", name=name, data={}).text.startswith(f"Hello {shown},\n" if shown else "Hello,\n")


@given(st.text(max_size=100))
def test_no_name_adds_a_tag_or_a_link(name: str) -> None:
    plain, named = (render("welcome", name=each, data={}) for each in ("", name))
    assert isinstance(named, MailText)
    assert Reader(named.html).tags == Reader(plain.html).tags
    assert Reader(named.html).links == Reader(plain.html).links == []
