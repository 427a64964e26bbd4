"""Tells an outage of a backing service, which passes, from a defect of ours, which does not."""

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

_UNREACHABLE: Final = frozenset({None, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
"""None: asyncio's "Multiple exceptions" where a name has several addresses and none answers."""


def is_outage(error: BaseException) -> bool:
    """Whether the same request may well succeed soon: the database is away, starting, overloaded, or gave no answer."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error, InterfaceError) or _passing(error.orig)
    if isinstance(error, BaseExceptionGroup):
        return all(is_outage(part) for part in error.exceptions)
    if isinstance(error, PoolTimeout | asyncpg.InterfaceError | TimeoutError | ConnectionError | socket.gaierror):
        return True
    return (type(error) is OSError and error.errno in _UNREACHABLE) or _passing(error)


def _passing(error: BaseException | None) -> bool:
    state = getattr(error, "sqlstate", None)
    return isinstance(state, str) and (state[:2] in _PASSING_CLASSES or state in _PASSING_STATES)
