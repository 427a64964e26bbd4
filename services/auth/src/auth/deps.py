"""Dependencies of auth's routes: the lifespan's state, a transaction, and who may call."""

from collections.abc import AsyncIterator
from typing import Annotated, Final, TypedDict

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from auth.keys.keyring import Keyring
from auth.oauth.grants import TokenEndpoint
from auth.oauth.inspection import TokenInspection
from auth.settings import Settings
from auth.tokens.own import OwnTokenVerifier
from common.db.database import Database
from common.security.guards import Guard, require_scopes
from common.security.revocation import SCOPE
from common.security.tokens import Principal


class State(TypedDict):
    """What the lifespan yields, available as `request.state`."""

    settings: Settings
    database: Database
    keyring: Keyring
    tokens: OwnTokenVerifier
    token_endpoint: TokenEndpoint
    token_inspection: TokenInspection


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.state.database.transaction() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]

PrincipalDep = Annotated[Principal, Depends(require_scopes("account"))]
admin_only: Final = Depends(Guard(scopes=("account",), roles=("admin",)))
"""The role alone is not enough: with a token narrowed to other scopes one could create a client of any scope."""
may_read_revocations: Final = Depends(require_scopes(SCOPE))
