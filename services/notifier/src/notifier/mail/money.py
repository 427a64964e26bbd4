"""Amounts as people read them."""

from decimal import Decimal
from typing import Final

_BY_DECIMALS: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
"""Currencies whose minor unit is not a hundredth (ISO 4217, list one)."""

_DECIMALS: Final = {currency: decimals for decimals, listed in _BY_DECIMALS.items() for currency in listed.split()}


def as_decimal(amount: int, currency: str) -> str:
    """`1234, "EUR"` is `12.34 EUR`; `amount` is in minor units."""
    return f"{Decimal(amount).scaleb(-_DECIMALS.get(currency, 2)):f} {currency}"
