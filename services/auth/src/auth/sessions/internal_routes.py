"""Revocations, for other services only: on the internal port, which no gateway route reaches."""

from datetime import timedelta
from typing import Final

from fastapi import Request

from auth import queries
from auth.deps import may_read_revocations
from auth.schemas import Revocations, RevokedSession, RevokedSubject
from common.db.database import utc_now
from common.web import ApiRouter
from common.web.session import SessionDep

router: Final = ApiRouter(prefix="/internal", tags=["internal"])

_SKEW: Final = timedelta(seconds=60)
"""Margin for clocks that differ."""


@router.get("/revocations", dependencies=[may_read_revocations])
async def read_revocations(request: Request, session: SessionDep) -> Revocations:
    """All revocations that may concern an unexpired token. A process reads them at start; later ones come as events."""
    since = utc_now() - request.state.settings.access_token_lifetime - _SKEW
    session_ids = await queries.revoked_session_ids(session, since=since)
    people = await queries.revoked_subjects(session, since=since)
    clients = await queries.revoked_clients(session, since=since)
    return Revocations(
        sessions=[RevokedSession(session_id=session_id) for session_id in session_ids],
        subjects=[
            *(
                RevokedSubject(
                    subject=str(person.user_id),
                    min_session_version=person.min_session_version,
                    except_session_id=person.excepted_session_id,
                    except_session_version=person.excepted_session_version,
                )
                for person in people
            ),
            *(RevokedSubject(subject=client.id, min_session_version=client.session_version) for client in clients),
        ],
    )
