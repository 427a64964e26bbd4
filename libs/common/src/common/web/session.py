"""The database session of a request."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    """One transaction of the lifespan's `database`: committed when the route returns, rolled back when it raises."""
    async with request.state.database.transaction() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
"""With FastAPI's default scope the client would get its answer before the commit, which may still fail."""
