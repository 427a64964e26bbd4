"""What routes are given: a transaction, the caller, and where the request comes from."""

from collections.abc import AsyncIterator
from typing import Annotated, TypedDict

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from auth.keys.keyring import Keyring
from auth.oauth.grants import TokenEndpoint
from auth.oauth.inspection import TokenInspection
from auth.settings import Settings
from auth.tokens.own import OwnVerifier
from common.db.database import Database
from common.security.guards import Guard, require_scopes
from common.security.revocation import SCOPE
from common.security.tokens import Principal


class State(TypedDict):
    """What the lifespan yields: `request.state`."""

    settings: Settings
    database: Database
    keyring: Keyring
    tokens: OwnVerifier
    token_endpoint: TokenEndpoint
    token_inspection: TokenInspection


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.state.database.transaction() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
PrincipalDep = Annotated[Principal, Depends(require_scopes("account"))]
AdminGuard = Depends(Guard(scopes=("account",), roles=("admin",)))
"""A token narrowed to less is not good for making a client of any scope."""
RevocationsReader = Depends(require_scopes(SCOPE))
