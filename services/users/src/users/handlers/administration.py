"""What admins do with others' accounts, and operators by the command line."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.outbox import record
from users import queries
from users.errors import LastAdmin
from users.events import UserDeactivated, UserReactivated, UserRoleChanged
from users.models import Role, User


async def change_role(session: AsyncSession, user_id: UUID, role: Role) -> User:
    """Raises `NotFound`, and `LastAdmin` where nobody would be left to manage users."""
    user = await _lock(session, user_id, stays_admin=role == "admin")
    if user.change_role(role):
        await record(session, UserRoleChanged(user_id=user.id, role=role), subject=user.id, version=user.version)
    return user


async def promote(session: AsyncSession, email: str, role: Role) -> tuple[User, Role]:
    """`change_role` by address, for operators; returns the role before as well. Raises as that does."""
    found = await queries.user_by_email(session, email)
    before = found.role
    return await change_role(session, found.id, role), before


async def deactivate(session: AsyncSession, user_id: UUID) -> User:
    """No sign-in from now on, and sessions end. Raises `NotFound`, `LastAdmin`."""
    user = await _lock(session, user_id, stays_admin=False)
    if user.change_status("deactivated"):
        await queries.void_links(session, user.id)
        await record(session, UserDeactivated(user_id=user.id), subject=user.id, version=user.version)
    return user


async def reactivate(session: AsyncSession, user_id: UUID) -> User:
    """Raises `NotFound`."""
    user = await queries.lock_user(session, user_id)
    if user.change_status("active"):
        await record(session, UserReactivated(user_id=user.id), subject=user.id, version=user.version)
    return user


async def _lock(session: AsyncSession, user_id: UUID, *, stays_admin: bool) -> User:
    """Locks the account. Where it may cease to be an active admin's, all of those first: two who take each other's
    role away at the same moment must not both succeed.
    """
    admins = [] if stays_admin else await queries.lock_active_admins(session)
    user = await queries.lock_user(session, user_id)
    if user.is_active_admin and not stays_admin and set(admins) <= {user.id}:
        raise LastAdmin
    return user
