"""Compares what auth knows of people with users, and takes users' word where users does not have auth's version.

Needed after users was restored from an older backup than auth, and after an event with a wrong version. Sign-ins repair
one person each (`admit`); this repairs the rest. It owns its transactions: a network call lies between them.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from auth import queries
from auth.events import AuditRecorded
from auth.models import Subject, SubjectStatus
from auth.oauth.users_client import Account, accounts
from auth.sessions import subjects
from auth.sessions.handlers import go_back
from common.db.database import Database, utc_now
from common.messaging.audit import record_act
from common.security.service_client import ServiceClient

_PAGE = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """A person on whom auth and users differ. `version` is users', None for a person whom users does not have."""

    user_id: UUID
    known_version: int
    version: int | None
    action: Literal["users' word taken", "sessions ended", "none"]


async def repair(
    database: Database, users: ServiceClient, *, actor: str, end_missing: bool, dry_run: bool
) -> AsyncIterator[Finding]:
    """Repairs everybody, and yields what it finds. `end_missing` signs out people whom users does not have."""
    after: UUID | None = None
    while True:
        async with database.transaction() as session:
            page = await queries.subjects(session, after=after, limit=_PAGE)
        if not page:
            return
        after = page[-1].user_id
        found = {account.user_id: account for account in await accounts(users, [known.user_id for known in page])}
        for known in page:
            account = found.get(known.user_id)
            if account is None:
                action: Literal["sessions ended", "none"] = "sessions ended" if end_missing else "none"
                if end_missing and not dry_run:
                    await _end(database, known, actor=actor)
                yield Finding(known.user_id, known.version, None, action)
            elif _contradicts(account, known):
                if not dry_run:
                    await _take_word(database, known, account, actor=actor)
                yield Finding(known.user_id, known.version, account.version, "users' word taken")


def _contradicts(account: Account, known: Subject) -> bool:
    """A later version at users is none: its event is on the way."""
    differs = (account.status, account.role) != (known.status, known.role)
    return account.version < known.version or (account.version == known.version and differs)


async def _take_word(database: Database, known: Subject, account: Account, *, actor: str) -> None:
    async with database.transaction() as session:
        subject = await queries.lock_subject(session, known.user_id)
        # As in `admit`: what auth has learned since may be later than users' response.
        if subject is not None and subject.version == known.version:
            status = SubjectStatus(account.status)
            await go_back(session, subject, version=account.version, status=status, role=account.role, now=utc_now())
            detail = f"version {known.version} to {account.version}"
            await record_act(
                session, "subject.repaired", known.user_id, actor=actor, detail=detail, event=AuditRecorded
            )


async def _end(database: Database, known: Subject, *, actor: str) -> None:
    async with database.transaction() as session:
        await subjects.erase(session, known.user_id, version=known.version + 1, now=utc_now())
        await record_act(session, "subject.ended", known.user_id, actor=actor, event=AuditRecorded)
