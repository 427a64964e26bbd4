"""Verifying an address and resetting a password, by one-time links in mails."""

import asyncio

from fastapi import Request, Response

from common.web import ApiRouter, responses
from common.web.headers import client_address
from users.credentials.throttle import network_of
from users.deps import DatabaseDep, HashingDep, PrincipalDep, SessionDep
from users.handlers import links, resets
from users.schemas import EmailConfirmation, PasswordReset, PasswordResetRequest

router = ApiRouter(tags=["links"])


@router.post("/email-verifications", status_code=202, response_class=Response, responses=responses(404))
async def request_email_verification(principal: PrincipalDep, session: SessionDep) -> None:
    """Has a link mailed to the account's address, unless that is verified already."""
    await links.request_email_verification(session, principal.user_id)


@router.post("/email-verifications/confirm", status_code=204, responses=responses(400))
async def confirm_email(body: EmailConfirmation, session: SessionDep) -> None:
    await links.confirm_email(session, body.token.get_secret_value())


@router.post("/password-resets", status_code=202, response_class=Response)
async def request_password_reset(body: PasswordResetRequest, request: Request, database: DatabaseDep) -> None:
    """Has a link mailed, if there is such an account; the answer is the same if not."""
    clock = asyncio.get_running_loop().time
    answer_at = clock() + resets.ANSWER_AFTER
    async with database.transaction() as session:
        await resets.request_password_reset(session, body.email, network=network_of(client_address(request)))
    await asyncio.sleep(answer_at - clock())


@router.post("/password-resets/confirm", status_code=204, responses=responses(400))
async def reset_password(body: PasswordReset, database: DatabaseDep, hashing: HashingDep) -> None:
    """Sets a new password. All sessions end; a refused password leaves the link unused."""
    token, password = body.token.get_secret_value(), body.password.get_secret_value()
    with hashing.place() as place:
        async with database.transaction() as session:
            owner = await links.reset_owner(session, token)
        await place.refuse_weak(password, name=owner.name, email=owner.email)
        password_hash = await place.hash(password)
    async with database.transaction() as session:
        await links.reset_password(session, token, password_hash)
