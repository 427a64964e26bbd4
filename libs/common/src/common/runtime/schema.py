"""A process is ready, and a worker begins, once the database has the tables and columns that its code uses."""

import asyncio
from pathlib import Path
from typing import Final

import structlog

from common.db.driver import DRIVER_ERRORS, Endpoint
from common.db.revisions import current_revision, newest_revision
from common.runtime.background import first_of
from common.settings import ServiceSettings

log = structlog.get_logger(__name__)

_POLL: Final = 1.0


class SchemaBehind(Exception):
    """The database lacks migrations of this code."""


class Schema:
    """Queries the database until it is at least at the code's revision, and never again after that."""

    def __init__(self, settings: ServiceSettings, folder: Path, *, role: str) -> None:
        """`folder` is that of the code's migrations."""
        self._endpoint = Endpoint.of(settings)
        self._name = f"{settings.service}-{role}-schema"
        self._needed = newest_revision(folder)
        self._is_there = False

    async def check(self) -> None:
        """Raises `SchemaBehind`, or an error of the driver."""
        if self._is_there:
            return
        connection = await self._endpoint.connect(self._name, timeout=10)
        try:
            current = await current_revision(connection)
        finally:
            connection.terminate()
        if current < self._needed:
            raise SchemaBehind(f"the database is at revision {current or 'none'}, the code needs {self._needed}")
        self._is_there = True

    async def wait(self, stop: asyncio.Event) -> None:
        """Returns when the schema is there, or when `stop` is set. Waits through outages of the database."""
        while not stop.is_set():
            try:
                await self.check()
            except (SchemaBehind, OSError, TimeoutError, *DRIVER_ERRORS) as error:
                log.warning("waiting for the database's schema", error=f"{type(error).__name__}: {error}")
                await first_of(stop, within=_POLL)
            else:
                return
