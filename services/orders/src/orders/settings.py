"""Settings of orders, beside those that every service has."""

from typing import ClassVar

from pydantic import Field, SecretStr

from common.settings import ServiceSettings


class Settings(ServiceSettings):
    service: ClassVar[str] = "orders"
    streamed: ClassVar[str | None] = "orders.order.#"

    client_secret: SecretStr
    """Of orders' own OAuth client: it reads revocations at auth."""
    database_pool_size: int = Field(default=3, ge=1, le=100)
    """Connections to PostgreSQL that one process keeps open for SQLAlchemy."""
    driver_pool_size: int = Field(default=3, ge=1, le=100)
    """Connections for placing and showing orders, beside those that SQLAlchemy holds: few, since more are slower."""
