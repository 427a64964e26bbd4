"""Who may call which route, and whose orders they see."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Request

from common.errors import Forbidden
from common.security.guards import Guard, require_scopes
from common.security.tokens import INSUFFICIENT_SCOPE, Principal

_STAFF: Final = ("staff", "admin")


def acts_on_all_orders(principal: Principal) -> bool:
    """True for staff, and for clients that act for themselves: their scopes, given by an admin, cover every order.

    A client that acts for staff by their consent sees their own orders only.
    """
    return principal.is_client or not (principal.is_delegated or principal.roles.isdisjoint(_STAFF))


def visible_customer(principal: Principal) -> UUID | None:
    """The only customer whose orders the principal may see and change, or None for every customer's."""
    return None if acts_on_all_orders(principal) else principal.user_id


class _AllOrdersGuard(Guard):
    """Also refuses principals that may act on their own orders only."""

    async def __call__(self, request: Request) -> Principal:
        principal = await super().__call__(request)
        if not acts_on_all_orders(principal):
            raise Forbidden("Only staff may do this.", headers={"WWW-Authenticate": INSUFFICIENT_SCOPE})
        return principal


may_read_orders: Final = Depends(require_scopes("orders:read"))
may_write_orders: Final = Depends(require_scopes("orders:write"))
may_process_orders: Final = Depends(_AllOrdersGuard(scopes=("orders:write",)))
may_read_catalogue: Final = Depends(Guard(any_client=True))
may_change_catalogue: Final = Depends(Guard(scopes=("orders:write",), roles=_STAFF))

ReaderDep = Annotated[Principal, may_read_orders]
