"""Amounts of money as people read them."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

_LISTED: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
"""By number of decimals, the currencies that do not have two (ISO 4217, list one)."""

_DECIMALS: Final = {currency: decimals for decimals, listed in _LISTED.items() for currency in listed.split()}


def format_money(money: Mapping[str, Any]) -> str:
    """`{"amount": 1234, "currency": "EUR"}` becomes `12.34 EUR`. The amount is in minor units."""
    return f"{Decimal(money['amount']).scaleb(-_DECIMALS.get(money['currency'], 2)):f} {money['currency']}"
