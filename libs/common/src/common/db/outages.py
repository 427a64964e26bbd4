"""Distinguishes an outage of a backing service, which passes, from a defect, which does not."""

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
_VALUE_CLASSES: Final = ("22", "54")
"""SQLSTATE classes: data exception, program limit exceeded (an integer, index entry or JSON value too large)."""

_LOST: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError, ConnectionError, socket.gaierror)
"""`InternalClientError`: a statement on a connection that was closed before the driver has noticed."""
_UNREACHABLE: Final = frozenset({None, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
"""None: asyncio's "Multiple exceptions" where a name has several addresses and none answers."""


def is_outage(error: BaseException) -> bool:
    """Whether the same request may soon succeed: the database is unavailable, starting, overloaded or timed out."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error, InterfaceError) or _is_passing(_drivers(error))
    if isinstance(error, BaseExceptionGroup):
        return all(is_outage(part) for part in error.exceptions)
    return isinstance(error, PoolTimeout) or _is_passing(error)


def _is_passing(error: BaseException | None) -> bool:
    if isinstance(error, _LOST) or (type(error) is OSError and error.errno in _UNREACHABLE):
        return True
    state = _sqlstate(error)
    return state.startswith(_PASSING_CLASSES) or state in _PASSING_STATES


def ran_out_of_time(error: BaseException) -> bool:
    """Whether a statement timed out, at the driver or at the server (`query_canceled`)."""
    cause = _drivers(error)
    return isinstance(cause, TimeoutError) or _sqlstate(cause) == "57014"


def is_unstorable(error: BaseException) -> bool:
    """Whether PostgreSQL or its driver refused a value that it cannot hold: the same value will be refused again."""
    return _sqlstate(_drivers(error)).startswith(_VALUE_CLASSES)


def _drivers(error: BaseException) -> BaseException | None:
    """The driver's own error."""
    return getattr(error.orig, "__cause__", None) or error.orig if isinstance(error, DBAPIError) else error


def _sqlstate(error: BaseException | None) -> str:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else ""
