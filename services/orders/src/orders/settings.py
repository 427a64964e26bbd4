"""Settings of orders, in addition to those that every service has."""

from typing import ClassVar

from pydantic import Field

from common.settings import ClientSettings


class Settings(ClientSettings):
    service: ClassVar[str] = "orders"
    streamed: ClassVar[str | None] = "orders.order.#"

    database_pool_size: int = Field(default=3, ge=1, le=100)
    """Largest number of database connections of each process, for everything but placing, changing and reading single
    orders.
    """
    driver_pool_size: int = Field(default=3, ge=1, le=100)
    """Largest number of database connections of each API process for placing, changing and reading single orders, in
    addition to `WAYBILL_DATABASE_POOL_SIZE`. The default is small because more connections are slower.
    """
