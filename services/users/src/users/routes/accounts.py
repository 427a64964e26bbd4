"""Sign-up, and people's own accounts."""

from typing import Any, Final
from uuid import UUID

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from pydantic import SecretStr

from common.db.database import Database
from common.security.guards import check_recent_sign_in
from common.security.networks import site_of
from common.web import ApiRouter, responses
from common.web.session import SessionDep
from users import queries
from users.credentials.passwords import HashingSlot
from users.deps import (
    AddressLimiterDep,
    DatabaseDep,
    HashingDep,
    NetworkDep,
    PrincipalDep,
    RecentPrincipalDep,
    SettingsDep,
)
from users.errors import EmailTaken, WrongPassword
from users.handlers import accounts, email_changes, logins
from users.handlers.logins import PasswordCheck
from users.schemas import PasswordChange, ProfileChange, SignUp, UserOut

router = ApiRouter(tags=["accounts"])

_NO_PASSWORD: Final[dict[str, Any]] = {"loc": ("body", "current_password"), "msg": "Field required", "type": "missing"}


@router.post("/users", status_code=201, responses=responses(409, 429))
async def sign_up(
    body: SignUp,
    response: Response,
    *,
    network: NetworkDep,
    settings: SettingsDep,
    database: DatabaseDep,
    hashing: HashingDep,
    limiter: AddressLimiterDep,
    send_welcome: bool = False,
) -> UserOut:
    """Creates an account, and sends a welcome mail if `send_welcome` is true.

    Each network may try a limited number of addresses, free or taken; then the answer is 429 `too_many_addresses`.
    """
    password = body.password.get_secret_value()
    async with limiter.acquire(site_of(network)), database.transaction() as session:
        limit = settings.addresses_per_network
        is_free = await accounts.try_address(session, body.email, network=network, limit=limit)
    if not is_free:
        raise EmailTaken
    async with hashing.slot("new_password", network=network) as slot:
        await slot.refuse_weak(password, name=body.name, email=body.email)
        password_hash = await slot.hash(password)
    async with database.transaction() as session:
        user = await accounts.sign_up(
            session,
            name=body.name,
            email=body.email,
            age=body.age,
            password_hash=password_hash,
            send_welcome=send_welcome,
        )
    response.headers["Location"] = f"/users/{user.id}"
    return UserOut.model_validate(user)


@router.get("/me", responses=responses(404))
async def get_me(principal: PrincipalDep, session: SessionDep) -> UserOut:
    """Returns the caller's account."""
    return UserOut.model_validate(await queries.user(session, principal.user_id))


@router.patch("/me", responses=responses(404, 409, 429))
async def change_me(
    body: ProfileChange,
    principal: PrincipalDep,
    *,
    network: NetworkDep,
    settings: SettingsDep,
    database: DatabaseDep,
    hashing: HashingDep,
    limiter: AddressLimiterDep,
) -> UserOut:
    """Changes the given fields of the caller's account.

    A new e-mail address needs `current_password` and a sign-in of the last 300 seconds. It is `pending_email` until the
    link that is mailed to it is used; a mail to the present address has a link that undoes the change. The present
    address as `email` cancels a change that waits. Each network may try a limited number of addresses, free or taken;
    then the answer is 429 `too_many_addresses`.
    """
    user_id, email, old_hash = principal.user_id, body.new_email, ""
    if email is not None:
        check_recent_sign_in(principal)
        if body.current_password is None:
            raise RequestValidationError([_NO_PASSWORD])
        async with hashing.slot("new_password", network=network) as slot:
            check = await _check_password(database, slot, user_id, body.current_password)
        old_hash = check.password_hash
        async with limiter.acquire(site_of(network)), database.transaction() as session:
            limit = settings.addresses_per_network
            is_free = await accounts.try_new_address(session, user_id, email, network=network, limit=limit)
        if not is_free:
            raise EmailTaken
    async with database.transaction() as session:
        user = await accounts.change_profile(session, user_id, body.changes())
        if email is not None:
            user = await email_changes.request_email_change(session, user_id, email, old_hash=old_hash)
    return UserOut.model_validate(user)


@router.delete("/me", status_code=204, responses=responses(404, 409))
async def erase_me(principal: RecentPrincipalDep, session: SessionDep) -> None:
    """Deletes the caller's account and its personal data, in all services. This cannot be undone, and needs a sign-in
    of the last 300 seconds.
    """
    await accounts.erase(session, principal.user_id)


@router.put("/me/password", status_code=204, responses=responses(404, 429))
async def change_my_password(
    body: PasswordChange, principal: PrincipalDep, network: NetworkDep, database: DatabaseDep, hashing: HashingDep
) -> None:
    """Sets a new password. Ends all sessions except the caller's."""
    user_id, new = principal.user_id, body.new.get_secret_value()
    async with hashing.slot("new_password", network=network) as slot:
        check = await _check_password(database, slot, user_id, body.current)
        await slot.refuse_weak(new, name=check.name, email=check.email, field="new")
        new_hash = await slot.hash(new)
    async with database.transaction() as session:
        await accounts.set_password(
            session,
            user_id,
            new_hash,
            old_hash=check.password_hash,
            except_session_id=principal.session_id,
        )


async def _check_password(database: Database, slot: HashingSlot, user_id: UUID, password: SecretStr) -> PasswordCheck:
    """Raises `NotFound`, `TooManyAttempts`, `WrongPassword`."""
    async with database.transaction() as session:
        check = await logins.begin_password_check(session, user_id)
    is_right = await slot.verify(password.get_secret_value(), check.password_hash)
    async with database.transaction() as session:
        await logins.finish_password_check(session, check, is_right=is_right)
    if not is_right:
        raise WrongPassword
    return check
