"""The links of a change of address: one confirms it at the new address, the other undoes it at the address before."""

from common.web import ApiRouter, responses
from common.web.session import SessionDep
from users.handlers import email_changes
from users.schemas import LinkUse

router = ApiRouter(prefix="/email-changes", tags=["links"])


@router.post("/confirm", status_code=204, responses=responses(400, 409))
async def confirm_email_change(body: LinkUse, session: SessionDep) -> None:
    """Replaces the account's e-mail address by the one that the link was mailed to. Each link can be used once."""
    await email_changes.confirm_email_change(session, body.token.get_secret_value())


@router.post("/revert", status_code=204, responses=responses(400, 409))
async def revert_email_change(body: LinkUse, session: SessionDep) -> None:
    """Restores the e-mail address that the link was mailed to, also after the change, and ends all sessions. Webhooks
    are disabled, because somebody else may have used the account. Each link can be used once.
    """
    await email_changes.revert_email_change(session, body.token.get_secret_value())
