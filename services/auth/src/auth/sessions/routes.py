"""A person's sessions, for the person and for administrators: list them, end one, end all."""

import uuid
from functools import partial
from typing import Final

from auth import queries
from auth.deps import PersonDep, PrincipalDep
from auth.models import Session
from auth.schemas import SessionOut
from auth.sessions import handlers
from common.db.database import utc_now
from common.web import ApiRouter, responses
from common.web.pagination import Page, PageDep, instant
from common.web.session import SessionDep

router: Final = ApiRouter(prefix="/sessions", tags=["sessions"])


@router.get("")
async def list_sessions(
    principal: PrincipalDep, person: PersonDep, session: SessionDep, page: PageDep
) -> Page[SessionOut]:
    """Your sessions, newest first. Administrators see those of anybody."""

    def item(family: Session) -> SessionOut:
        return SessionOut(
            id=family.id,
            client_id=family.client_id,
            amr=family.amr,
            device=family.device,
            created_at=family.created_at,
            last_used_at=family.last_used_at,
            current=str(family.id) == principal.session_id,
        )

    fetch = partial(queries.live_sessions, session, person, now=utc_now())
    return await page.load(fetch, by={"created_at": instant, "id": uuid.UUID}, item=item)


@router.delete("/{session_id}", status_code=204, responses=responses(404))
async def end_session(session_id: uuid.UUID, principal: PrincipalDep, person: PersonDep, session: SessionDep) -> None:
    """Signs you out of one session. All services refuse its tokens within a second. Administrators end anybody's."""
    await handlers.end_session(session, session_id, user_id=person, by=principal.user_id, now=utc_now())


@router.delete("", status_code=204)
async def end_all_sessions(principal: PrincipalDep, person: PersonDep, session: SessionDep) -> None:
    """Signs you out of all sessions, including this one. Administrators sign out anybody."""
    await handlers.end_all_sessions(session, person, by=principal.user_id, now=utc_now())
