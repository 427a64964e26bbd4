"""The text of every mail: a subject and a plain-text body.

Values that people entered are reduced to one printable line, so that they can forge neither a paragraph nor a header.
"""

import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from notifier.delivery.single_line import single_line
from notifier.mail.money import format_money
from notifier.models import TITLES, Kind

_LINKISH: Final = re.compile(r"[/@:\\]|\w\.\w")


@dataclass(frozen=True, slots=True)
class MailText:
    subject: str
    body: str


def welcome(name: str) -> MailText:
    return MailText(
        TITLES["welcome"],
        f"""\
{greeting(name)}

A warm welcome to Waybill. Your account is ready.

From now on you receive news of your orders at this address.
{_CLOSING}""",
    )


def order_update(kind: Kind, name: str, order_id: UUID, data: dict[str, Any]) -> MailText:
    """`data` is the data of the notification: see `notifier.consumers`."""
    return MailText(
        f"{TITLES[kind]} ({order_id})",
        f"""\
{greeting(name)}

{_ORDER_MESSAGES[kind]}

{_order_details(order_id, data)}
{_CLOSING}""",
    )


def password_changed(name: str) -> MailText:
    return MailText(
        TITLES["password_changed"],
        f"""\
{greeting(name)}

The password of your account was changed.

If it was you, there is nothing to do. If not, somebody else knows your
password: set a new one now, and change it wherever else you use it.
{_CLOSING}""",
    )


def email_changed(name: str) -> MailText:
    """For the previous address."""
    return MailText(
        TITLES["email_changed"],
        f"""\
{greeting(name)}

Your account now has another e-mail address. This mail is the last one to
the previous address.

If it was you, there is nothing to do. If not, somebody else is signed in to
your account: please contact us at once.
{_CLOSING}""",
    )


def security_notice(kind: Kind, name: str) -> MailText:
    return MailText(
        TITLES[kind],
        f"""\
{greeting(name)}

{_NOTICES[kind]}

If it was you, there is nothing to do. If not, please contact us at once.
{_CLOSING}""",
    )


def secret_link(purpose: Kind, url: str) -> MailText:
    """Omits the name: anyone can request a link for a stranger's address, and must not send them text of their own."""
    return MailText(
        TITLES[purpose],
        f"""\
Hello,

{_LINK_REASONS[purpose]}

{url}

The link works once, and only for a short time.
If this was not you, please ignore this mail: nothing changes.
{_CLOSING}""",
    )


def greeting(name: str) -> str:
    """Omits a name that looks like a link: sign-up is open, and a name must not put advertising into our mails."""
    shown = display_name(name)
    return f"Hello {shown}," if shown else "Hello,"


def display_name(name: str) -> str:
    """The name as mails show it; empty if it looks like an address or a link."""
    shown = single_line(name)
    return "" if _LINKISH.search(shown) else shown


def _order_details(order_id: UUID, data: dict[str, Any]) -> str:
    details = [("Order", str(order_id)), ("Total", format_money(data["total"]))]
    if "tracking_number" in data:
        details.append(("Carrier", single_line(data["carrier"])))
        details.append(("Tracking number", single_line(data["tracking_number"])))
    if data.get("reason"):
        details.append(("Reason", single_line(data["reason"])))
    lines = [f"  {label + ':':<16} {value}" for label, value in details]
    if "lines" in data:
        lines.append("")
        for item in data["lines"]:
            price = format_money(item["unit_price"])
            lines.append(f"  {item['quantity']} x {single_line(item['name'])}, {price} each")
    return "\n".join(lines)


_ORDER_MESSAGES: Final[dict[Kind, str]] = {
    "order_placed": "Thank you for your order. We will write to you as soon as it is confirmed.",
    "order_confirmed": "Your order is confirmed. We are getting it ready.",
    "order_shipped": "Your order is on its way to you.",
    "order_delivered": "Your order was delivered. Enjoy!",
    "order_cancelled": "Your order was cancelled. Nothing will be sent.",
}

_LINK_REASONS: Final[dict[Kind, str]] = {
    "verify_email": "Please verify with this link that this e-mail address is yours:",
    "reset_password": "Somebody asked to reset the password of your account. Set a new one with this link:",
    "confirm_email": "Please confirm with this link that your account should have this e-mail address:",
    "revert_email": (
        "Somebody asked for another e-mail address for your account. If it was not you, keep this address with this"
        " link, which also signs out everywhere:"
    ),
}

_NOTICES: Final[dict[Kind, str]] = {
    "new_sign_in": "Somebody signed in to your account from a new device.",
    "account_deactivated": "Your account was deactivated. You can't sign in any more.",
    "account_reactivated": "Your account is active again. You can sign in.",
    "authenticator_changed": "The second factor of your account was changed.",
    "webhook_added": "A webhook was added to your account. It receives news of your orders.",
    "webhook_disabled": "A webhook of your account was disabled. It receives nothing until it is enabled again.",
    "email_reverted": "Your account has this e-mail address again, and all sessions have ended.",
}

_CLOSING: Final = """
Waybill

This mail was sent automatically. Replies to it are not read.
"""
