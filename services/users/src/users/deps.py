"""What routes are given: the session, who asks, and what the lifespan holds."""

from collections.abc import AsyncIterator
from typing import Annotated, Final, TypedDict

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database
from common.security.guards import Guard, require_scopes
from common.security.tokens import Principal, TokenVerifier
from users.credentials.concurrency_limiter import Gate
from users.credentials.passwords import HashingPool


class State(TypedDict):
    """What the lifespan yields."""

    database: Database
    tokens: TokenVerifier
    hashing: HashingPool
    gate: Gate


async def get_database(request: Request) -> Database:
    """For routes that hash: those need more than one transaction, with none open in between."""
    database: Database = request.state.database
    return database


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.state.database.transaction() as session:
        yield session


async def get_hashing(request: Request) -> HashingPool:
    hashing: HashingPool = request.state.hashing
    return hashing


async def get_gate(request: Request) -> Gate:
    gate: Gate = request.state.gate
    return gate


DatabaseDep = Annotated[Database, Depends(get_database)]
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
HashingDep = Annotated[HashingPool, Depends(get_hashing)]
GateDep = Annotated[Gate, Depends(get_gate)]

PrincipalDep = Annotated[Principal, Depends(require_scopes("account"))]
admin_only: Final = Depends(Guard(scopes=("account",), roles=("admin",)))
may_verify_credentials: Final = Depends(require_scopes("credentials:verify"))
may_issue_links: Final = Depends(require_scopes("links:issue"))
