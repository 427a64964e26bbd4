"""Who may call auth's routes, the OAuth endpoints excepted."""

import uuid
from typing import Annotated, ClassVar, Final

from fastapi import Depends, Query

from common.errors import Forbidden
from common.security import guards
from common.security.guards import Guard, require_scopes
from common.security.revocation import SCOPE
from common.security.tokens import INSUFFICIENT_SCOPE, Principal

ADMIN: Final = "admin"

PrincipalDep = Annotated[Principal, Depends(require_scopes("account"))]
admin_only: Final = Depends(Guard(scopes=("account",), roles=(ADMIN,)))
"""The role alone is not enough: with a token narrowed to other scopes one could create a client of any scope."""
recent_sign_in: Final = Depends(guards.recent_sign_in)
"""A stolen access token must not become a client that outlives it."""
may_read_revocations: Final = Depends(require_scopes(SCOPE))


class _Person:
    """The person whose sessions and sign-ins a request is about: the caller, or for an administrator `user_id`.

    Raises `Forbidden`.
    """

    statuses: ClassVar = (403,)

    async def __call__(
        self,
        principal: PrincipalDep,
        user_id: Annotated[uuid.UUID | None, Query(description="Another person's (administrators only).")] = None,
    ) -> uuid.UUID:
        if user_id in (None, principal.user_id):
            return principal.user_id
        if ADMIN not in principal.roles:
            raise Forbidden("This needs another role", headers={"WWW-Authenticate": INSUFFICIENT_SCOPE})
        return user_id


PersonDep = Annotated[uuid.UUID, Depends(_Person())]
