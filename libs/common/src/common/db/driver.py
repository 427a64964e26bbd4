"""asyncpg: the address it takes and the errors it raises."""

from typing import Final

import asyncpg
from sqlalchemy.engine import make_url

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises. `InternalClientError` is no defect: a statement gets it between the server's last message on
a connection and the driver's noticing that the connection was closed."""


def driver_dsn(url: str) -> str:
    """The address as asyncpg takes it, from one with SQLAlchemy's driver name."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
