"""For other services, on a port of its own: checks credentials and issues the secrets of one-time links."""

from uuid import UUID

from common.db.database import utc_now
from common.errors import NotFound
from common.web import ApiRouter, responses
from common.web.session import SessionDep
from users import queries
from users.credentials import second_factor
from users.credentials.throttle import attempt_key
from users.deps import (
    DatabaseDep,
    EncryptionDep,
    HashingDep,
    LoginLimiterDep,
    may_issue_links,
    may_read_profiles,
    may_verify_credentials,
)
from users.errors import InvalidCredentials, MfaRequired
from users.handlers import authenticators, links, logins
from users.schemas import (
    AccountIds,
    AccountState,
    AccountStates,
    Credentials,
    IssuedLinkOut,
    ProfileOut,
    VerifiedAccount,
)

router = ApiRouter(prefix="/internal", tags=["internal"])


@router.post("/credentials/verify", dependencies=[may_verify_credentials], responses=responses(429))
async def verify_credentials(
    body: Credentials,
    *,
    database: DatabaseDep,
    hashing: HashingDep,
    limiter: LoginLimiterDep,
    encryption: EncryptionDep,
) -> VerifiedAccount:
    """Returns the account with these credentials. An unknown account, a wrong password and a deactivated account get
    the same 401 after the same time, with or without a code; so does a wrong code. A right password without the code
    of the account's second factor gets 401 `mfa_required`. The header `Waybill-Account` names the account.
    """
    email, network, password = body.email.lower(), body.network, body.password.get_secret_value()
    code = body.otp.get_secret_value() if body.otp is not None else None
    found: authenticators.Found = "none"
    version: int | None = None
    device = logins.Device(body.device.user_id, body.device.id) if body.device is not None else None
    async with limiter.acquire(attempt_key(email, network)):
        async with hashing.slot("sign_in", network=network) as slot:
            async with database.transaction() as session:
                login = await logins.begin_login(session, email=email, network=network, device=device)
            stored = login.password_hash
            is_right = await slot.verify(password, stored)
            new_hash = await slot.hash(password) if is_right and stored and slot.is_outdated(stored) else None
        if is_right and login.needs_code_of is not None:
            async with database.transaction() as session:
                found, version = await authenticators.use_code(
                    session, login.needs_code_of, code, encryption, now=utc_now()
                )
        async with database.transaction() as session:
            if found == "missing":
                await logins.leave_login(session, login)
            else:
                is_right = is_right and found != "wrong"
                account = await logins.finish_login(session, login, is_right=is_right, new_hash=new_hash)
    if found == "missing":
        raise MfaRequired(login.user_id)
    if account is None:
        raise InvalidCredentials(login.user_id)
    return VerifiedAccount(
        user_id=account.user_id,
        role=account.role,
        status=account.status,
        version=version or account.version,
        amr=list(second_factor.AMR) if found == "right" else ["pwd"],
        has_second_factor=found == "right",
    )


@router.post("/accounts", dependencies=[may_verify_credentials])
async def read_accounts(body: AccountIds, session: SessionDep) -> AccountStates:
    """Returns those of these accounts that exist, as they are now."""
    found = await queries.users_by_id(session, body.user_ids)
    states = [AccountState(user_id=user.id, role=user.role, status=user.status, version=user.version) for user in found]
    return AccountStates(items=states)


@router.post("/secret-links/{link_id}", dependencies=[may_issue_links], responses=responses(404))
async def issue_secret_link(link_id: UUID, session: SessionDep) -> IssuedLinkOut:
    """Issues the secret of a link for the mail that is being written. On 404, do not send the mail."""
    return IssuedLinkOut.model_validate(await links.issue_link(session, link_id))


@router.get("/users/{user_id}/profile", dependencies=[may_read_profiles], responses=responses(404))
async def read_profile(user_id: UUID, session: SessionDep) -> ProfileOut:
    """Name and address of an active account, for a client that its person allowed to know them."""
    user = await queries.user(session, user_id)
    if user.status != "active":
        raise NotFound("There is no such user.")
    return ProfileOut.model_validate(user)
