"""The errors that orders answers with."""

from collections.abc import Sequence

from common.errors import Conflict, Unprocessable


class InvalidTransition(Conflict):
    """The order's state does not allow the change, or does not allow it to this caller."""

    code, title = "invalid_transition", "The order's state does not allow this"


class UnsellableLines(Unprocessable):
    """Lines of an order that cannot be sold. `positions` are their indexes, from 0."""

    message = "This product cannot be ordered"

    def __init__(self, positions: Sequence[int]) -> None:
        super().__init__(
            errors=[
                {"loc": ["body", "lines", position, "sku"], "msg": self.message, "code": self.code}
                for position in positions
            ]
        )


class UnknownSku(UnsellableLines):
    code, title, message = "unknown_sku", "Unknown product", "No product has this SKU"


class InactiveProduct(UnsellableLines):
    code, title, message = "inactive_product", "Product not on sale", "This product is not on sale"


class MixedCurrencies(UnsellableLines):
    """An order has one total and so one currency."""

    code, title = "mixed_currencies", "Products priced in different currencies"
    message = "The first line has another currency"


class TotalTooLarge(Unprocessable):
    """The total exceeds the largest integer that every JSON reader represents exactly (RFC 8259 §6)."""

    code, title = "total_too_large", "Order total too large"
