"""For other services, on a port of its own: is this the password, and the secret of a one-time link."""

from uuid import UUID

from common.web import ApiRouter, responses
from users.credentials.throttle import pair_key
from users.deps import DatabaseDep, GateDep, HashingDep, SessionDep, may_issue_links, may_verify_credentials
from users.errors import InvalidCredentials
from users.handlers import links, logins
from users.schemas import Credentials, IssuedLinkOut, VerifiedAccount

router = ApiRouter(prefix="/internal", tags=["internal"])


@router.post("/credentials/verify", dependencies=[may_verify_credentials], responses=responses(429))
async def verify_credentials(
    body: Credentials, database: DatabaseDep, hashing: HashingDep, gate: GateDep
) -> VerifiedAccount:
    """Whose credentials these are. Unknown, wrong and deactivated get the same 401 after the same time."""
    email, network, password = body.email.lower(), body.network, body.password.get_secret_value()
    async with gate.through(pair_key(email, network)):
        with hashing.place() as place:
            async with database.transaction() as session:
                login = await logins.begin_login(session, email=email, network=network)
            right, kept = await place.verify(password, login.password_hash), login.password_hash
            new_hash = await place.hash(password) if right and kept and place.is_outdated(kept) else None
        async with database.transaction() as session:
            account = await logins.finish_login(session, login, right_password=right, new_hash=new_hash)
    if account is None:
        raise InvalidCredentials
    return VerifiedAccount.model_validate(account)


@router.post("/secret-links/{link_id}", dependencies=[may_issue_links], responses=responses(404))
async def issue_secret_link(link_id: UUID, session: SessionDep) -> IssuedLinkOut:
    """Makes the secret of a link whose mail is being written. 404 means: write none."""
    return IssuedLinkOut.model_validate(await links.issue(session, link_id))
