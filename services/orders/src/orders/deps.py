"""What routes are given: the session, who asks, and what the lifespan holds."""

from collections.abc import AsyncIterator
from typing import Annotated, Final, TypedDict
from uuid import UUID

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database
from common.db.driver_pool import DriverPool
from common.errors import Forbidden
from common.security.guards import Guard, authenticate, require_scopes
from common.security.tokens import INSUFFICIENT_SCOPE, Principal, TokenVerifier
from orders.handlers import InsertOrder

_STAFF: Final = ("staff", "admin")


class State(TypedDict):
    """What the lifespan yields."""

    database: Database
    driver: DriverPool
    insert_order: InsertOrder
    tokens: TokenVerifier


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.state.database.transaction() as session:
        yield session


def runs_orders(principal: Principal) -> bool:
    """Staff do, and clients that act for themselves: what an administrator gave them a scope for, that they may do to
    any order.
    """
    return principal.is_client or not principal.roles.isdisjoint(_STAFF)


def visible_customer(principal: Principal) -> UUID | None:
    """Whose orders alone the principal may see and change; None where they may be anybody's."""
    return None if runs_orders(principal) else principal.user_id


class _OrderDesk(Guard):
    """Lets those through who run orders."""

    async def __call__(self, request: Request) -> Principal:
        principal = await super().__call__(request)
        if not runs_orders(principal):
            raise Forbidden("This is for staff.", headers={"WWW-Authenticate": INSUFFICIENT_SCOPE})
        return principal


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]

ReaderDep = Annotated[Principal, Depends(require_scopes("orders:read"))]
WriterDep = Annotated[Principal, Depends(require_scopes("orders:write"))]
signed_in: Final = Depends(authenticate)
may_read: Final = Depends(require_scopes("orders:read"))
may_write: Final = Depends(require_scopes("orders:write"))
order_desk: Final = Depends(_OrderDesk(scopes=("orders:write",)))
catalogue_staff: Final = Depends(Guard(scopes=("orders:write",), roles=_STAFF))
