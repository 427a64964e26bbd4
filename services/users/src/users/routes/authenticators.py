"""A person's own second factor. Changes need a sign-in of the last 300 seconds."""

from fastapi import Response

from common.web import ApiRouter, responses
from common.web.session import SessionDep
from users.credentials import second_factor
from users.deps import DatabaseDep, EncryptionDep, PrincipalDep, RecentPrincipalDep
from users.errors import WrongCode
from users.handlers import authenticators
from users.schemas import AuthenticatorList, AuthenticatorOut, NewTotpOut, RecoveryCodes, TotpConfirmation

router = ApiRouter(prefix="/me/authenticators", tags=["authenticators"])


@router.get("")
async def list_authenticators(principal: PrincipalDep, session: SessionDep) -> AuthenticatorList:
    """The caller's second factor, if they have one, and how many recovery codes are left."""
    found = await second_factor.find(session, principal.user_id)
    return AuthenticatorList(
        items=[
            AuthenticatorOut(type="totp", created_at=each.created_at, last_used_at=each.last_used_at)
            for each in found.confirmed
        ],
        recovery_codes_left=found.recovery_codes_left,
    )


@router.post("/totp", status_code=201, responses=responses(404, 409))
async def add_totp(
    principal: RecentPrincipalDep, session: SessionDep, encryption: EncryptionDep, response: Response
) -> NewTotpOut:
    """Prepares an authenticator app. It is a second factor once its first code has confirmed it."""
    response.headers["Cache-Control"] = "no-store"
    return NewTotpOut.model_validate(await authenticators.add_totp(session, principal.user_id, encryption))


@router.post("/totp/confirm", responses=responses(404, 429))
async def confirm_totp(
    body: TotpConfirmation,
    principal: RecentPrincipalDep,
    database: DatabaseDep,
    encryption: EncryptionDep,
    response: Response,
) -> RecoveryCodes:
    """Makes the app the account's second factor. From then on a sign-in needs a code, and this one is used up.

    A wrong code gets 403 `wrong_code`.
    """
    user_id = principal.user_id
    async with database.transaction() as session:
        attempt = await authenticators.begin_confirmation(session, user_id)
    async with database.transaction() as session:
        codes = await authenticators.finish_confirmation(session, user_id, body.code, encryption, attempt)
    if codes is None:
        raise WrongCode
    response.headers["Cache-Control"] = "no-store"
    return RecoveryCodes(recovery_codes=codes)


@router.delete("/totp", status_code=204, responses=responses(404))
async def remove_totp(principal: RecentPrincipalDep, session: SessionDep) -> None:
    """Removes the second factor and its recovery codes."""
    await authenticators.remove_totp(session, principal.user_id)
