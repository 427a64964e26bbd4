"""Deletes rows that no unexpired token refers to. Every API replica runs this; they do not coordinate."""

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, func, select, true
from sqlalchemy.orm import InstrumentedAttribute

from auth.browser_models import AuthorizationCode, BrowserSession
from auth.client_models import RevokedToken, UsedAssertion
from auth.models import Client, Session
from auth.sign_in_models import SignIn
from common.db.database import Database
from common.db.expired_rows import expired_before

CLEANUP_SECONDS: Final = 600.0
_BATCH: Final = 1_000
_ENDED_SESSIONS_KEPT: Final = timedelta(days=7)
_SIGN_INS_KEPT: Final = timedelta(days=90)
_REVOCATIONS_KEPT: Final = timedelta(hours=1)
"""Longer than the lifetime of any access token."""
_USED_CODES_KEPT: Final = timedelta(days=7)
"""As long as a second use ends the session that the first one began."""
_EXPIRING: Final[tuple[tuple[InstrumentedAttribute[Any], ColumnElement[bool], timedelta], ...]] = (
    (Session.revoked_at, true(), _ENDED_SESSIONS_KEPT),
    (Session.idle_until, Session.revoked_at.is_(None), _ENDED_SESSIONS_KEPT),
    (RevokedToken.revoked_at, true(), _REVOCATIONS_KEPT),
    (Client.deleted_at, true(), _REVOCATIONS_KEPT),
    (SignIn.created_at, true(), _SIGN_INS_KEPT),
    (UsedAssertion.expires_at, true(), timedelta(0)),
    (BrowserSession.ends_at, true(), _REVOCATIONS_KEPT),
    (AuthorizationCode.expires_at, true(), _USED_CODES_KEPT),
)
"""The column by which rows expire, which of them, and how long after that time they are kept."""


async def run_cleanup(database: Database) -> int:
    """Deletes what has expired, a day's rows of each kind at most. Returns how many rows."""
    newest = select(Session.created_at).order_by(Session.id.desc()).limit(1)
    count = 0
    for column, condition, kept in _EXPIRING:
        async with database.transaction() as session:
            before = await expired_before(
                session, kept, oldest=select(func.min(column)).where(condition), newest=newest
            )
        deleted = _BATCH if before is not None else 0
        while deleted == _BATCH:
            table = column.class_.__table__
            key = table.primary_key.columns[0]
            rows = select(key).where(condition, column < before).limit(_BATCH)
            async with database.transaction() as session:
                deleted = len((await session.execute(delete(table).where(key.in_(rows)).returning(key))).all())
            count += deleted
    return count
