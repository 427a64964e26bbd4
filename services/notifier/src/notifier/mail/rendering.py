"""Renders a mail, as text and as HTML, from the same template of its kind in `notifier/templates`.

A template has paragraphs, separated by empty lines, and calls the macros of `parts.html` or `parts.txt`. In HTML every
value is escaped. Values that people entered are reduced to one printable line, so that they can't forge a paragraph.
"""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

from notifier.delivery.single_line import single_line
from notifier.mail.devices import describe_device
from notifier.mail.money import format_money
from notifier.mail.names import display_name
from notifier.models import TITLES, Kind

_WIDTH: Final = 72
_EMPTY_LINES: Final = re.compile(r"\n(?:[ \t]*\n)+")
_UNSUBSCRIBE_REASONS: Final = {
    "order": "You receive this because you placed an order.",
    "welcome": "You receive this because you signed up.",
}


@dataclass(frozen=True, slots=True)
class MailText:
    subject: str
    text: str
    html: str


def render(
    kind: Kind,
    *,
    name: str = "",
    data: Mapping[str, Any],
    link_url: str | None = None,
    unsubscribe_url: str | None = None,
) -> MailText:
    """`data` is what the templates use: that of the notification, with `order_id` and `occurred_at`.

    Without a name nobody is addressed: anyone can request a link for a stranger's address, and must not send them text.
    """
    shown, order_id = display_name(name), data.get("order_id")
    values = {
        **_on_single_lines(data),
        "title": TITLES[kind],
        "device": describe_device(data.get("device")),
        "greeting": f"Hello {shown}," if shown else "Hello,",
        "link_url": link_url,
        "unsubscribe_url": unsubscribe_url,
        "unsubscribe_reason": _UNSUBSCRIBE_REASONS.get(kind.partition("_")[0]),
    }
    html, text = (
        environment.get_template(f"{kind}.jinja").render(values, layout=layout)
        for environment, layout in ((HTML, "layout.html"), (_TEXT, "layout.txt"))
    )
    return MailText(f"{TITLES[kind]} ({order_id})" if order_id else TITLES[kind], text, html)


def _on_single_lines(value: Any) -> Any:
    match value:
        case str():
            return single_line(value)
        case Mapping():
            return {key: _on_single_lines(each) for key, each in value.items()}
        case list():
            return [_on_single_lines(each) for each in value]
        case _:
            return value


def _paragraphs_of_text(body: str) -> str:
    """Wraps paragraphs, and keeps the lines of those that begin with spaces."""
    parts = (part if part.startswith(" ") else _wrapped(part) for part in _EMPTY_LINES.split(body.strip("\n")))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _paragraphs_of_html(body: Markup) -> Markup:
    """Makes a `<p>` of each part that is not an element. Values are escaped, so none can begin with `<`."""
    parts = map(Markup.strip, map(Markup, _EMPTY_LINES.split(body)))
    paragraphs = (part if part.startswith("<") else Markup("<p>{}</p>").format(part) for part in parts if part)
    return Markup("\n").join(paragraphs)


def _moment(moment: datetime) -> str:
    """Such as `2 January 2026, 03:04 UTC`."""
    return f"{moment.astimezone(UTC):%-d %B %Y, %H:%M} UTC"


def _environment(parts: str, paragraphs: Any, *, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("notifier"),
        autoescape=autoescape,  # noqa: S701 - off for text alone
        undefined=ChainableUndefined,  # an event of an older producer lacks fields
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"paragraphs": paragraphs, "money": format_money, "moment": _moment}
    environment.globals["part"] = environment.get_template(parts).module
    return environment


HTML: Final = _environment("parts.html", _paragraphs_of_html, autoescape=True)
_TEXT: Final = _environment("parts.txt", _paragraphs_of_text, autoescape=False)
