"""What a person has allowed other clients: list it, withdraw it."""

from functools import partial
from typing import Final

from auth.deps import PrincipalDep
from auth.schemas import GrantOut
from auth.sessions import consents, queries
from common.db.database import utc_now
from common.web import ApiRouter, responses
from common.web.pagination import Page, PageDep, instant
from common.web.session import SessionDep

router: Final = ApiRouter(prefix="/grants", tags=["grants"])


@router.get("")
async def list_grants(principal: PrincipalDep, session: SessionDep, page: PageDep) -> Page[GrantOut]:
    """The clients that may act for you, and what you allowed them, newest first."""
    fetch = partial(queries.consents, session, principal.user_id)
    return await page.load(fetch, by={"granted_at": instant, "client_id": str}, item=GrantOut.model_validate)


@router.delete("/{client_id}", status_code=204, responses=responses(404))
async def withdraw_grant(client_id: str, principal: PrincipalDep, session: SessionDep) -> None:
    """Withdraws what you allowed a client. All services refuse its tokens within a second."""
    await consents.withdraw(session, principal.user_id, client_id, now=utc_now())
