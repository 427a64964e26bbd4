"""Dependencies of routes: the session and the caller."""

from collections.abc import AsyncIterator
from typing import Annotated, TypedDict

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database
from common.security.guards import require_scopes
from common.security.tokens import Principal, TokenVerifier
from notifier.webhooks.destinations import Destinations
from notifier.webhooks.secrets import SecretBox


class State(TypedDict):
    """The state that the lifespan yields."""

    database: Database
    tokens: TokenVerifier
    destinations: Destinations
    secret_box: SecretBox


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.state.database
    async with database.transaction() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
ReaderDep = Annotated[Principal, Depends(require_scopes("notifications:read"))]
WriterDep = Annotated[Principal, Depends(require_scopes("notifications:write"))]
