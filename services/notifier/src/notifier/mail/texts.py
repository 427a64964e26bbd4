"""The words of every mail: one subject and one plain text each.

Whatever comes from people is put on one line, without control and formatting characters: it can neither forge a
paragraph nor a header.
"""

import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from notifier.mail.money import as_decimal
from notifier.models import TITLES, Kind

_LINKISH: Final = re.compile(r"[/@:\\]|\w\.\w")
_JOINERS: Final = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"


@dataclass(frozen=True, slots=True)
class Text:
    subject: str
    body: str


def welcome(name: str) -> Text:
    return Text(
        TITLES["welcome"],
        f"""\
{greeting(name)}

welcome to Waybill. Your account is ready.

From now on we tell you at this address how your orders are doing.
{_CLOSING}""",
    )


def order_update(kind: Kind, name: str, order_id: UUID, data: dict[str, Any]) -> Text:
    """`data` is what `notifier.consumers` keeps of the event."""
    return Text(
        f"{TITLES[kind]} ({order_id})",
        f"""\
{greeting(name)}

{_ORDER_NEWS[kind]}

{_order_facts(order_id, data)}
{_CLOSING}""",
    )


def password_changed(name: str) -> Text:
    return Text(
        TITLES["password_changed"],
        f"""\
{greeting(name)}

the password of your account was changed.

Was it you? Then there is nothing to do. If not, somebody else knows
your password: set a new one now, and change it wherever else you use it.
{_CLOSING}""",
    )


def email_changed(name: str) -> Text:
    """To the address before."""
    return Text(
        TITLES["email_changed"],
        f"""\
{greeting(name)}

your account has another e-mail address now. This mail goes to the one it
had before, and is the last to do so.

Was it you? Then there is nothing to do. If not, somebody else is signed in
to your account: please tell us at once.
{_CLOSING}""",
    )


def secret_link(purpose: Kind, url: str) -> Text:
    """Without the name: whoever types a stranger's address must not reach them with words of their own."""
    return Text(
        TITLES[purpose],
        f"""\
Hello,

{_LINK_REASONS[purpose]}

{url}

The link works once, and for a short time only.
If this was not you, please ignore this mail: nothing changes.
{_CLOSING}""",
    )


def greeting(name: str) -> str:
    """By name, unless it looks like a link: sign-up is open, and a name must not make our mail carry advertising."""
    shown = displayed(name)
    return f"Hello {shown}," if shown else "Hello,"


def displayed(name: str) -> str:
    """The name as mails show it; empty where it looks like an address or a link."""
    shown = one_line(name)
    return "" if _LINKISH.search(shown) else shown


def one_line(text: str) -> str:
    """Printable characters and single spaces; joiners stay, since some scripts can't be written without."""
    return " ".join("".join(char if char.isprintable() or char in _JOINERS else " " for char in text).split())


def _order_facts(order_id: UUID, data: dict[str, Any]) -> str:
    facts = [("Order", str(order_id)), ("Total", _money(data["total"]))]
    if "tracking_number" in data:
        facts += [("Carrier", one_line(data["carrier"])), ("Tracking number", one_line(data["tracking_number"]))]
    if data.get("reason"):
        facts.append(("Reason", one_line(data["reason"])))
    lines = [f"  {label + ':':<16} {value}" for label, value in facts]
    if "lines" in data:
        items = data["lines"]
        lines += [
            "",
            *(f"  {item['quantity']} x {one_line(item['name'])}, {_money(item['unit_price'])} each" for item in items),
        ]
    return "\n".join(lines)


def _money(money: dict[str, Any]) -> str:
    return as_decimal(money["amount"], money["currency"])


_ORDER_NEWS: Final[dict[Kind, str]] = {
    "order_placed": "thank you for your order. We tell you as soon as it is confirmed.",
    "order_confirmed": "your order is confirmed. We are getting it ready.",
    "order_shipped": "your order is on its way to you.",
    "order_delivered": "your order was delivered. Enjoy!",
    "order_cancelled": "your order was cancelled. Nothing will be sent.",
}

_LINK_REASONS: Final[dict[Kind, str]] = {
    "verify_email": "please verify that this e-mail address is yours, by this link:",
    "reset_password": "somebody asked to reset the password of your account. Set a new one by this link:",
}

_CLOSING: Final = """
Waybill

This mail was sent automatically; nobody reads the answers to it.
"""
