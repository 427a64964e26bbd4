"""For other services only: a port of its own, no gateway route, a service's token."""

from datetime import timedelta
from typing import Final

from fastapi import Request

from auth import queries
from auth.deps import RevocationsReader, SessionDep
from auth.schemas import Revocations, RevokedSession, RevokedSubject
from common.db.database import utc_now
from common.web import ApiRouter

router: Final = ApiRouter(prefix="/internal", tags=["internal"])

_SKEW: Final = timedelta(seconds=60)


@router.get("/revocations", dependencies=[RevocationsReader])
async def read_revocations(request: Request, session: SessionDep) -> Revocations:
    """What a process that starts late has missed."""
    since = utc_now() - request.state.settings.access_token_lifetime - _SKEW
    session_ids = await queries.revoked_session_ids(session, since=since)
    people = await queries.cut_subjects(session, since=since)
    clients = await queries.cut_clients(session, since=since)
    return Revocations(
        sessions=[RevokedSession(session_id=session_id) for session_id in session_ids],
        subjects=[
            *(
                RevokedSubject(
                    subject=str(person.user_id),
                    min_session_version=person.min_session_version,
                    except_session_id=person.spared_session_id,
                    except_session_version=person.spared_session_version,
                )
                for person in people
            ),
            *(RevokedSubject(subject=one.id, min_session_version=one.session_version) for one in clients),
        ],
    )
