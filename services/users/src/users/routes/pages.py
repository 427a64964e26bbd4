"""The pages that links in mails lead to, unless a shop has pages of its own: one plain page per kind of link.

A page uses the link only on a click, because mail scanners follow links too.
"""

import re
from pathlib import Path
from string import Template
from typing import Final

from fastapi.responses import HTMLResponse

from common.web import ApiRouter
from common.web.pages import STYLE, page_headers
from users.credentials.passwords import MAX_LENGTH, MIN_LENGTH

router = ApiRouter()

_SOURCE: Final = Path(__file__).with_name("link_page.html").read_text()
_SCRIPT: Final = re.findall("<script>(.*?)</script>", _SOURCE, re.DOTALL)[0]
_HEADERS: Final = {**page_headers(script=_SCRIPT), "Referrer-Policy": "no-referrer"}  # the address holds a secret


def _page(*, title: str, path: str, button: str, done: str, field: str = "") -> str:
    """A page that posts its link to `path`. `field` is HTML between the title and the button."""
    return Template(_SOURCE).substitute(title=title, style=STYLE, path=path, field=field, button=button, done=done)


_VERIFY: Final = _page(
    title="Verify your e-mail address",
    path="/email-verifications/confirm",
    button="Verify",
    done="Your e-mail address is verified.",
)
_RESET: Final = _page(
    title="Set a new password",
    path="/password-resets/confirm",
    field=f'<label>New password, {MIN_LENGTH} characters or more <input type="password" name="password" '
    f'minlength="{MIN_LENGTH}" maxlength="{MAX_LENGTH}" autocomplete="new-password" required></label>\n',
    button="Set password",
    done="Your password is changed. You are signed out on all devices.",
)
_CONFIRM: Final = _page(
    title="Confirm your new e-mail address",
    path="/email-changes/confirm",
    button="Confirm",
    done="Your new e-mail address is in use.",
)
_REVERT: Final = _page(
    title="Keep your e-mail address",
    path="/email-changes/revert",
    field="<p>If you did not ask for the change of your e-mail address, undo it here, and set a new password after "
    "that.</p>\n",
    button="Undo the change",
    done="Your account has this e-mail address again. You are signed out on all devices.",
)


@router.get("/email-verifications/page", include_in_schema=False)
async def show_verification_page() -> HTMLResponse:
    return HTMLResponse(_VERIFY, headers=_HEADERS)


@router.get("/password-resets/page", include_in_schema=False)
async def show_reset_page() -> HTMLResponse:
    return HTMLResponse(_RESET, headers=_HEADERS)


@router.get("/email-changes/page", include_in_schema=False)
async def show_confirmation_page() -> HTMLResponse:
    return HTMLResponse(_CONFIRM, headers=_HEADERS)


@router.get("/email-changes/revert-page", include_in_schema=False)
async def show_revert_page() -> HTMLResponse:
    return HTMLResponse(_REVERT, headers=_HEADERS)
