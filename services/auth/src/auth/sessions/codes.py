"""Authorization codes (RFC 6749 §4.1, RFC 7636): issued to a redirect URI, exchanged once. Nothing here commits."""

import base64
import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.browser_models import AuthorizationCode, BrowserSession
from auth.models import Session, SessionLimits, SubjectStatus
from auth.sessions.consents import covers
from auth.sessions.handlers import Refused, SignedIn, begin_session, describe_device, revoke_session
from auth.sessions.queries import authorization_code, browser_session_by_id
from auth.sign_ins.queries import set_session
from common.db.database import new_id

PREFIX: Final = "wbc_"
"""Lets secret scanners recognise a leaked code."""
LIFETIME: Final = timedelta(seconds=60)
_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")  # RFC 7636 §4.1


@dataclass(frozen=True, slots=True)
class CodeContent:
    """What a code is good for."""

    client_id: str
    redirect_uri: str
    scopes: Sequence[str]
    resources: Sequence[str]
    code_challenge: str
    nonce: str | None


@dataclass(frozen=True, slots=True)
class CodeUse:
    """A client's attempt to exchange a code. `needs_consent`: the client is not first-party."""

    code: str
    client_id: str
    needs_consent: bool
    redirect_uri: str
    verifier: str
    device: str


def issue_code(session: AsyncSession, browser: BrowserSession, content: CodeContent, *, now: datetime) -> str:
    """A new code for the person who is signed in in the browser."""
    code = PREFIX + secrets.token_urlsafe(32)
    session.add(
        AuthorizationCode(
            code_hash=_digest(code),
            client_id=content.client_id,
            user_id=browser.user_id,
            browser_session_id=browser.id,
            redirect_uri=content.redirect_uri,
            scopes=list(content.scopes),
            resources=list(content.resources),
            code_challenge=content.code_challenge,
            nonce=content.nonce,
            expires_at=now + LIFETIME,
        )
    )
    return code


async def redeem_code(
    session: AsyncSession, use: CodeUse, *, secret: bytes, limits: SessionLimits, now: datetime
) -> SignedIn | Refused:
    """Begins the session that the code stands for.

    A second use by the same client ends that session (RFC 6749 §4.1.2), even if the client has only lost the first
    response: the two look the same. A request with another URI or verifier proves nothing and changes nothing.
    """
    found = await authorization_code(session, _digest(use.code))
    subject = None if found is None else await queries.lock_subject(session, found.user_id)
    code = await authorization_code(session, _digest(use.code), lock=True)
    if subject is None or code is None or not _is_for(code, use):
        return Refused("unknown")
    if code.session_id is not None:
        family = await queries.lock_own_session(session, code.session_id, user_id=code.user_id)
        if family is not None:
            await revoke_session(session, family, "code_reuse", now)
        return Refused("code_reuse")
    browser = await browser_session_by_id(session, code.browser_session_id)
    is_allowed = not use.needs_consent or await covers(session, code.user_id, code.client_id, code.scopes)
    if now >= code.expires_at or browser is None or subject.status != SubjectStatus.ACTIVE or not is_allowed:
        return Refused("ended")
    code.session_id = new_id()
    is_new_device, browser.is_new_device = browser.is_new_device, False
    await set_session(session, code.user_id, signed_in_at=browser.authenticated_at, session_id=code.session_id)
    return await begin_session(
        session,
        subject,
        _session_of(code, code.session_id, browser, use.device),
        is_new_device=is_new_device,
        secret=secret,
        limits=limits,
        now=now,
        nonce=code.nonce,
    )


def _is_for(code: AuthorizationCode, use: CodeUse) -> bool:
    is_right_place = (code.client_id, code.redirect_uri) == (use.client_id, use.redirect_uri)
    return is_right_place and is_verifier_of(use.verifier, code.code_challenge)


def is_verifier_of(verifier: str, challenge: str) -> bool:
    """RFC 7636 §4.6, method S256."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    return hmac.compare_digest(digest, challenge.encode())


def _session_of(code: AuthorizationCode, session_id: uuid.UUID, browser: BrowserSession, device: str) -> Session:
    return Session(
        id=session_id,
        user_id=code.user_id,
        client_id=code.client_id,
        scopes=list(code.scopes),
        resources=list(code.resources),
        device=browser.device or describe_device(device),
        subject_version=browser.subject_version,
        amr=list(browser.amr),
        authenticated_at=browser.authenticated_at,
        browser_session_id=browser.id,
    )


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()
