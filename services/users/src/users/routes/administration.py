"""Accounts as admins see and change them."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import Query

from common.errors import NotFound
from common.web import ApiRouter, responses
from common.web.pagination import Page, PageDep
from common.web.session import SessionDep
from users import queries
from users.deps import PrincipalDep, may_manage_users, recent_sign_in
from users.handlers import administration
from users.models import ADMIN, Role, Status
from users.profile import MAX_EMAIL
from users.schemas import RoleChange, UserOut

router = ApiRouter(prefix="/users", tags=["administration"])


@router.get("", dependencies=[may_manage_users])
async def list_users(
    page: PageDep,
    session: SessionDep,
    email: Annotated[str | None, Query(max_length=MAX_EMAIL)] = None,
    role: Role | None = None,
    status: Status | None = None,
) -> Page[UserOut]:
    """Lists all accounts, newest first. `email` is compared without regard to case."""
    address = email.lower() if email is not None else None
    fetch = partial(queries.users, session, email=address, role=role, status=status)
    return await page.load(fetch, by={"id": UUID}, item=UserOut.model_validate)


@router.get("/{user_id}", responses=responses(404))
async def get_user(user_id: UUID, principal: PrincipalDep, session: SessionDep) -> UserOut:
    """Returns an account. Only admins can read accounts other than their own."""
    if principal.user_id != user_id and ADMIN not in principal.roles:
        raise NotFound("There is no such user.")
    return UserOut.model_validate(await queries.user(session, user_id))


@router.patch("/{user_id}", dependencies=[may_manage_users, recent_sign_in], responses=responses(404, 409))
async def change_role(user_id: UUID, body: RoleChange, principal: PrincipalDep, session: SessionDep) -> UserOut:
    """Gives the account a role in place of the one it has. The last active admin keeps theirs.

    Needs a sign-in of the last 300 seconds.
    """
    return UserOut.model_validate(
        await administration.change_role(session, user_id, body.role, actor=principal.subject)
    )


@router.post("/{user_id}/deactivate", dependencies=[may_manage_users], responses=responses(404, 409))
async def deactivate_user(user_id: UUID, principal: PrincipalDep, session: SessionDep) -> UserOut:
    """Prevents the person from signing in and ends all their sessions."""
    return UserOut.model_validate(await administration.deactivate(session, user_id, actor=principal.subject))


@router.post("/{user_id}/reactivate", dependencies=[may_manage_users], responses=responses(404))
async def reactivate_user(user_id: UUID, principal: PrincipalDep, session: SessionDep) -> UserOut:
    """Lets the person sign in again."""
    return UserOut.model_validate(await administration.reactivate(session, user_id, actor=principal.subject))
