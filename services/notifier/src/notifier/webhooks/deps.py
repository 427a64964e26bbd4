"""Who may call the routes of webhooks, and whose webhooks they are."""

from typing import Annotated, ClassVar, Final

from fastapi import Depends, Request

from common.security.guards import InsufficientScope, authenticate
from common.security.tokens import INSUFFICIENT_SCOPE, Principal
from notifier.webhooks.models import Owner


class _OwnerGuard:
    """Admits a person's token with the scope `of_person`, and a client's own with any one of `of_client`."""

    is_guard: ClassVar[bool] = True

    def __init__(self, *, of_person: str, of_client: tuple[str, ...]) -> None:
        self.scopes = (of_person,)
        self._of_client = of_client

    async def __call__(self, request: Request) -> Principal:
        principal = await authenticate(request)
        accepted = self._of_client if principal.is_client else self.scopes
        if principal.scopes.isdisjoint(accepted):
            raise InsufficientScope(
                f"This needs the scope {' or '.join(accepted)}",
                headers={"WWW-Authenticate": f'{INSUFFICIENT_SCOPE}, scope="{accepted[0]}"'},
            )
        return principal


_may_read: Final = _OwnerGuard(of_person="notifications:read", of_client=("webhooks:read", "webhooks:write"))
_may_write: Final = _OwnerGuard(of_person="notifications:write", of_client=("webhooks:write",))


async def _reading_owner(principal: Annotated[Principal, Depends(_may_read)]) -> Owner:
    return _owner(principal)


async def _writing_owner(principal: Annotated[Principal, Depends(_may_write)]) -> Owner:
    return _owner(principal)


def _owner(principal: Principal) -> Owner:
    return Owner(client_id=principal.client_id) if principal.is_client else Owner(user_id=principal.user_id)


ReadingOwnerDep = Annotated[Owner, Depends(_reading_owner)]
WritingOwnerDep = Annotated[Owner, Depends(_writing_owner)]
