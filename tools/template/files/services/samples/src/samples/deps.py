"""What routes are given: the session and the caller."""

from collections.abc import AsyncIterator
from typing import Annotated, TypedDict

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database
from common.security.guards import authenticate
from common.security.tokens import Principal, TokenVerifier


class State(TypedDict):
    """What the lifespan yields."""

    database: Database
    tokens: TokenVerifier


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.state.database.transaction() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
CallerDep = Annotated[Principal, Depends(authenticate)]
