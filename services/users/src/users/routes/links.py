"""E-mail verification and password reset, by one-time links in mails."""

import asyncio

from fastapi import Response

from common.web import ApiRouter, responses
from common.web.session import SessionDep
from users.deps import DatabaseDep, HashingDep, NetworkDep, PrincipalDep, limit_mails
from users.handlers import links, resets
from users.schemas import LinkUse, PasswordReset, PasswordResetRequest

router = ApiRouter(tags=["links"])


@router.post(
    "/email-verifications",
    status_code=202,
    response_class=Response,
    dependencies=[limit_mails],
    responses=responses(404),
)
async def request_email_verification(principal: PrincipalDep, session: SessionDep) -> None:
    """Mails a link to the account's e-mail address, unless it is verified or has got several such mails this hour.

    Each network may request a limited number of mails; then the answer is 429 `too_many_addresses`.
    """
    await links.request_email_verification(session, principal.user_id)


@router.post("/email-verifications/confirm", status_code=204, responses=responses(400))
async def confirm_email(body: LinkUse, session: SessionDep) -> None:
    """Marks the e-mail address as verified. Each link can be used once."""
    await links.confirm_email(session, body.token.get_secret_value())


@router.post("/password-resets", status_code=202, response_class=Response, dependencies=[limit_mails])
async def request_password_reset(body: PasswordResetRequest, network: NetworkDep, database: DatabaseDep) -> None:
    """Mails a link if there is such an account. The response is the same if there is not.

    Each network may request a limited number of mails; then the answer is 429 `too_many_addresses`.
    """
    clock = asyncio.get_running_loop().time
    respond_at = clock() + resets.RESPONSE_TIME
    async with database.transaction() as session:
        await resets.request_password_reset(session, body.email, network=network)
    await asyncio.sleep(respond_at - clock())


@router.post("/password-resets/confirm", status_code=204, responses=responses(400))
async def reset_password(body: PasswordReset, network: NetworkDep, database: DatabaseDep, hashing: HashingDep) -> None:
    """Sets a new password and ends all sessions. The e-mail address is then verified, and the account's webhooks are
    disabled, because somebody else may have used it. If the password is refused, the link can still be used.
    """
    token, password = body.token.get_secret_value(), body.password.get_secret_value()
    async with database.transaction() as session:
        owner = await links.reset_owner(session, token)
    async with hashing.slot("new_password", network=network) as slot:
        await slot.refuse_weak(password, name=owner.name, email=owner.email)
        password_hash = await slot.hash(password)
    async with database.transaction() as session:
        await links.reset_password(session, token, password_hash, network=network)
