"""What admins do with other people's accounts, and operators on the command line."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.audit import record_act
from common.messaging.outbox import record
from users import queries
from users.errors import LastAdmin
from users.events import AuditRecorded, UserDeactivated, UserReactivated, UserRoleChanged
from users.models import ADMIN, Role, User


async def change_role(session: AsyncSession, user_id: UUID, role: Role, *, actor: str) -> User:
    """Raises `NotFound`, and `LastAdmin` if no active admin would remain."""
    user = await lock_account(session, user_id, stays_admin=role == ADMIN)
    before = user.role
    if user.change_role(role):
        await record(session, UserRoleChanged(user_id=user.id, role=role), subject=user.id, version=user.version)
        await _record_act(session, "user.role_changed", user, actor=actor, detail=f"{before} to {role}")
    return user


async def promote(session: AsyncSession, email: str, role: Role, *, actor: str) -> tuple[User, Role]:
    """`change_role` by address, for operators. Also returns the role before. Raises what `change_role` raises."""
    found = await queries.user_by_email(session, email)
    before = found.role
    return await change_role(session, found.id, role, actor=actor), before


async def deactivate(session: AsyncSession, user_id: UUID, *, actor: str) -> User:
    """Prevents sign-ins; the event ends all sessions. Raises `NotFound`, `LastAdmin`."""
    user = await lock_account(session, user_id, stays_admin=False)
    if user.change_status("deactivated"):
        await queries.void_links(session, user)
        await record(session, UserDeactivated(user_id=user.id), subject=user.id, version=user.version)
        await _record_act(session, "user.deactivated", user, actor=actor)
    return user


async def reactivate(session: AsyncSession, user_id: UUID, *, actor: str) -> User:
    """Raises `NotFound`."""
    user = await queries.lock_user(session, user_id)
    if user.change_status("active"):
        await record(session, UserReactivated(user_id=user.id), subject=user.id, version=user.version)
        await _record_act(session, "user.reactivated", user, actor=actor)
    return user


async def _record_act(session: AsyncSession, action: str, user: User, *, actor: str, detail: str | None = None) -> None:
    await record_act(session, action, user.id, actor=actor, detail=detail, event=AuditRecorded)


async def lock_account(session: AsyncSession, user_id: UUID, *, stays_admin: bool) -> User:
    """Locks the account. If it may cease to be an active admin, locks all active admins first: of two admins who
    demote each other at the same moment, only one may succeed.

    Raises `NotFound`, and `LastAdmin` if no active admin would remain.
    """
    admins = [] if stays_admin else await queries.lock_active_admins(session)
    user = await queries.lock_user(session, user_id)
    if user.is_active_admin and not stays_admin and set(admins) <= {user.id}:
        raise LastAdmin
    return user
