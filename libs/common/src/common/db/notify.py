"""NOTIFY and LISTEN: the quick signal that there is work. Listeners poll as well, since a notification can be lost."""

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import asyncpg
import structlog

from common.db.driver import DRIVER_ERRORS, Endpoint

log = structlog.get_logger(__name__)

_RECONNECT_PAUSE: Final = 1.0
_COALESCE: Final = 0.001
"""Seconds in which further notifications join the next NOTIFY."""


class Notifier:
    """Sends NOTIFY on a connection of its own, many notifications in one statement.

    Inside the writers' transactions NOTIFY would serialise their commits and cost half their throughput.
    """

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self._endpoint = endpoint
        self._name = f"{name}-notify"
        self._pending = asyncio.Event()
        self._channels: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def notify(self, channel: str) -> None:
        self._channels.add(channel)
        self._pending.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="notify")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        connection: Any = None
        try:
            while True:
                await self._pending.wait()
                self._pending.clear()
                channels, self._channels = self._channels, set()
                try:
                    if connection is None or connection.is_closed():
                        connection = await self._endpoint.connect(self._name, timeout=5, command_timeout=5)
                    await connection.execute("; ".join(f"NOTIFY {channel}" for channel in sorted(channels)))
                except (OSError, TimeoutError, *DRIVER_ERRORS) as error:
                    log.warning("NOTIFY failed, listeners fall back to polling", error=type(error).__name__)
                    if connection is not None:
                        connection.terminate()
                        connection = None
                await asyncio.sleep(_COALESCE)
        finally:
            if connection is not None:
                connection.terminate()


async def listen(
    channel: str,
    on_notify: Callable[[], None],
    *,
    dsn: str,
    name: str,
    others: Mapping[str, Callable[[], None]] = MappingProxyType({}),
) -> None:
    """Calls `on_notify` at each notification of `channel`, until cancelled. Reconnects when the connection is lost.

    `others` are further channels of the same connection, each with its own call.

    `dsn` is that of the server itself: a pooler in transaction mode refuses or forgets LISTEN.
    """
    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=5, server_settings={"application_name": name})
            try:
                lost = asyncio.Event()
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                for each, call in {channel: on_notify, **others}.items():
                    await connection.add_listener(each, lambda *_, call=call: call())
                    call()  # for what was notified before this connection listened
                await lost.wait()
            finally:
                connection.terminate()
        except (OSError, TimeoutError, *DRIVER_ERRORS) as error:
            log.warning("LISTEN failed, falling back to polling", channel=channel, error=type(error).__name__)
        await asyncio.sleep(_RECONNECT_PAUSE)
