"""Browser sessions: a person signed in on auth's own pages. Nothing here commits."""

import hashlib
import uuid
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.browser_models import BrowserSession
from auth.models import Session
from auth.sessions.handlers import Refused, VerifiedPerson, admit, revoke_session
from auth.sessions.queries import (
    browser_session,
    delete_browser_session,
    lock_sessions_of_browser,
    move_sessions,
)
from auth.sign_ins.handlers import Origin, keep_success
from common.db.database import new_id


def cookie_hash(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()


async def start_browser_session(
    session: AsyncSession,
    person: VerifiedPerson,
    origin: Origin,
    *,
    cookie: str,
    replaced_cookie: str | None,
    known_version: int | None,
    lifetime: timedelta,
    now: datetime,
) -> BrowserSession | Refused:
    """Signs a person in, in place of whoever was signed in with the `replaced_cookie`, and keeps the sign-in.

    The same person's sessions continue in the new browser session, so that they end with it. Another person's end.

    `cookie` is a new secret: one that a stranger could have set before the sign-in must not name the session.
    """
    replaced = None
    if replaced_cookie is not None:
        replaced = await browser_session(session, cookie_hash(replaced_cookie), now=now)
    if replaced is not None:
        for user_id in sorted({replaced.user_id, person.user_id}):
            await queries.lock_subject(session, user_id)
    subject = await admit(session, person, known_version=known_version, now=now)
    if isinstance(subject, Refused):
        return subject
    browser_id = new_id()
    if replaced is not None and replaced.user_id == person.user_id:
        await delete_browser_session(session, replaced.id)
        await move_sessions(session, replaced, browser_id)
    elif replaced is not None:
        await end_browser_session(session, replaced, now=now)
    is_new = await keep_success(session, subject, origin, session_id=None, now=now)
    browser = BrowserSession(
        id=browser_id,
        cookie_hash=cookie_hash(cookie),
        user_id=person.user_id,
        subject_version=person.version,
        amr=list(person.amr),
        authenticated_at=now,
        device=origin.device,
        is_new_device=is_new,
        ends_at=now + lifetime,
    )
    session.add(browser)
    await session.flush()
    return browser


async def end_browser_session(session: AsyncSession, browser: BrowserSession, *, now: datetime) -> None:
    """Signs the person out in a browser, and ends the sessions of the clients that were authorized in it."""
    await queries.lock_subject(session, browser.user_id)
    await delete_browser_session(session, browser.id)
    for family in await lock_sessions_of_browser(session, browser.id, browser.user_id):
        await revoke_session(session, family, "logout", now)


async def end_session_by_hint(
    session: AsyncSession, session_id: uuid.UUID, *, user_id: uuid.UUID, now: datetime
) -> None:
    """Ends the session that an ID token names, and the browser session in which it was authorized."""
    await queries.lock_subject(session, user_id)
    family: Session | None = await queries.lock_own_session(session, session_id, user_id=user_id)
    if family is None:
        return
    await revoke_session(session, family, "logout", now)
    if family.browser_session_id is not None:
        browser = await session.get(BrowserSession, family.browser_session_id)
        if browser is not None:
            await end_browser_session(session, browser, now=now)
