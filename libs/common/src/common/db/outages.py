"""Distinguishes an outage of a backing service, which passes, from a defect of ours, which does not."""

import errno
import socket
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_PASSING_CLASSES: Final = ("08", "53", "57")
"""SQLSTATE classes: connection exception, insufficient resources, operator intervention (PostgreSQL, appendix A)."""
_PASSING_STATES: Final = frozenset({"25006", "40001", "40P01", "55000", "55P03"})
"""Read-only transaction (a stand-by just promoted or demoted), serialization failure, deadlock, database closed to
connections, lock not available."""

_LOST: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError, ConnectionError, socket.gaierror)
"""`InternalClientError`: a statement on a connection that was closed before the driver has noticed."""
_UNREACHABLE: Final = frozenset({None, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
"""None: asyncio's "Multiple exceptions" where a name has several addresses and none answers."""


def is_outage(error: BaseException) -> bool:
    """Whether the same request may soon succeed: the database is unavailable, starting, overloaded or timed out."""
    if isinstance(error, DBAPIError):
        cause = getattr(error.orig, "__cause__", None) or error.orig  # the driver's own
        return error.connection_invalidated or isinstance(error, InterfaceError) or _is_passing(cause)
    if isinstance(error, BaseExceptionGroup):
        return all(is_outage(part) for part in error.exceptions)
    return isinstance(error, PoolTimeout) or _is_passing(error)


def _is_passing(error: BaseException | None) -> bool:
    if isinstance(error, _LOST) or (type(error) is OSError and error.errno in _UNREACHABLE):
        return True
    state = getattr(error, "sqlstate", None)
    return isinstance(state, str) and (state[:2] in _PASSING_CLASSES or state in _PASSING_STATES)


def ran_out_of_time(error: BaseException) -> bool:
    """Whether a statement timed out, at the driver or at the server (`query_canceled`)."""
    cause = getattr(error.orig, "__cause__", None) or error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, TimeoutError) or getattr(cause, "sqlstate", None) == "57014"
