"""Who may call auth's routes, the OAuth endpoints excepted."""

from typing import Annotated, Final

from fastapi import Depends

from common.security import guards
from common.security.guards import Guard, require_scopes
from common.security.revocation import SCOPE
from common.security.tokens import Principal

PrincipalDep = Annotated[Principal, Depends(require_scopes("account"))]
admin_only: Final = Depends(Guard(scopes=("account",), roles=("admin",)))
"""The role alone is not enough: with a token narrowed to other scopes one could create a client of any scope."""
recent_sign_in: Final = Depends(guards.recent_sign_in)
"""A stolen access token must not become a client that outlives it."""
may_read_revocations: Final = Depends(require_scopes(SCOPE))
