"""Refusals of orders."""

from collections.abc import Sequence

from common.errors import Conflict, Unprocessable


class InvalidTransition(Conflict):
    """The order's state, or who asks in it, does not allow the change."""

    code, title = "invalid_transition", "The order's state does not allow this"


class UnsellableLines(Unprocessable):
    """Lines of an order that can't be priced; `positions` count from 0."""

    message = "This product can't be ordered"

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
    """An order has one total, hence one currency."""

    code, title = "mixed_currencies", "Products priced in different currencies"
    message = "Priced in another currency than the first line"


class TotalTooLarge(Unprocessable):
    """The total is past what every JSON reader holds exactly (RFC 8259 §6)."""

    code, title = "total_too_large", "Order total too large"
