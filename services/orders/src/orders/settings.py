"""Settings of orders, beside those that every service has."""

from typing import ClassVar

from pydantic import SecretStr

from common.settings import ServiceSettings


class OrdersSettings(ServiceSettings):
    service: ClassVar[str] = "orders"

    client_secret: SecretStr
    """Of orders' own OAuth client: it reads revocations at auth."""
