"""The page behind the unsubscribe links of mails, and its one-click form (RFC 8058).

A GET shows a form and changes nothing, because mail scanners follow links. A POST needs no sign-in: the link is enough.
"""

from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from common.web import ApiRouter
from common.web.pages import STYLE, page_headers
from common.web.session import SessionDep
from notifier import handlers
from notifier.mail.rendering import HTML
from notifier.mail.unsubscribe_links import UnsubscribeLinks
from notifier.models import Preference

router: Final = ApiRouter()

_STYLE: Final = Markup(STYLE)  # noqa: S704 - a constant of ours
_HEADERS: Final = {**page_headers(form_targets=("'self'",)), "Referrer-Policy": "no-referrer"}  # the link is a secret
_MAILS: Final[dict[Preference, str]] = {"order_updates": "mails about orders", "welcome": "welcome mails"}


async def _links(request: Request) -> UnsubscribeLinks:
    links: UnsubscribeLinks = request.state.unsubscribe_links
    return links


LinksDep = Annotated[UnsubscribeLinks, Depends(_links)]


@router.get("/unsubscribe/{link}", include_in_schema=False)
async def show_unsubscribe_form(link: str, links: LinksDep) -> HTMLResponse:
    found = links.read(link)
    return _page("asking", "Turn these mails off?", found[1]) if found else _unknown()


@router.post("/unsubscribe/{link}", include_in_schema=False)
async def unsubscribe(link: str, links: LinksDep, session: SessionDep) -> HTMLResponse:
    """Repeating it changes nothing."""
    found = links.read(link)
    if found is None:
        return _unknown()
    user_id, preference = found
    await handlers.turn_off_mails(session, user_id, preference)
    return _page("done", "These mails are off", preference)


def _unknown() -> HTMLResponse:
    return _page("unknown", "This link is not complete", status=404)


def _page(state: str, title: str, preference: Preference | None = None, *, status: int = 200) -> HTMLResponse:
    mails = _MAILS[preference] if preference else None
    page = HTML.get_template("unsubscribe.html").render(state=state, title=title, mails=mails, style=_STYLE)
    return HTMLResponse(page, status, headers=_HEADERS)
