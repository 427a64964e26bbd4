"""A mail of each kind with made-up values, for previews, pictures and tests."""

from datetime import UTC, datetime
from typing import Any, Final, get_args

from notifier.mail.rendering import MailText, render
from notifier.models import Kind, LinkKind, preference_of

_TOTAL: Final = {"amount": 14700, "currency": "EUR"}
_ORDER: Final[dict[str, Any]] = {"order_id": "01a2054c-a789-745f-8420-744221d467b8", "total": _TOTAL}
_LINES: Final = [
    {"name": "Desk lamp", "quantity": 2, "unit_price": {"amount": 4900, "currency": "EUR"}},
    {"name": "Floor lamp with a linen shade", "quantity": 1, "unit_price": {"amount": 4900, "currency": "EUR"}},
]
_WEBHOOK: Final = {"webhook_id": "01a2054c-b0c4-7d1e-9a53-5f1e0c7b2d90"}
_DATA: Final[dict[Kind, dict[str, Any]]] = {
    "order_placed": _ORDER | {"lines": _LINES},
    "order_confirmed": _ORDER,
    "order_shipped": _ORDER | {"carrier": "DHL", "tracking_number": "JD014600003"},
    "order_delivered": _ORDER,
    "order_cancelled": _ORDER | {"reason": "Out of stock", "cancelled_by": "staff"},
    "new_sign_in": {"device": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
    "authenticator_changed": {"change": "added"},
    "webhook_added": _WEBHOOK,
    "webhook_disabled": _WEBHOOK | {"disabled_reason": "failing"},
}


def sample(kind: Kind, *, name: str = "Ada Lovelace", public_url: str = "https://shop.example") -> MailText:
    return render(
        kind,
        name="" if kind in get_args(LinkKind) else name,
        data=_DATA.get(kind, {}) | {"occurred_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC)},
        link_url=f"{public_url}/page?token=SECRET" if kind in get_args(LinkKind) else None,
        unsubscribe_url=f"{public_url}/unsubscribe/LINK" if preference_of(kind) else None,
    )
