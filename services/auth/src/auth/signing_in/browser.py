"""What a page's routes have in common: the browser's cookie, responses, forms of this site only, errors as pages."""

import dataclasses
import re
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final, Self
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from auth.errors import CrossSiteForm, InvalidRequest
from auth.oauth.form import FORM_TYPE, Form
from auth.redirect_uris import policy_source
from auth.settings import Settings
from auth.signing_in.pages import message_page
from auth.signing_in.parameters import AuthorizationRequest
from auth.tokens.device import KnownDevice, seal, unseal
from common.db.database import utc_now
from common.db.outages import is_outage
from common.errors import AppError, UnsupportedMediaType
from common.web import ApiRoute
from common.web.pages import page_headers

_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_URI: Final = re.compile(r"[\x21-\x7e]+")
_DEVICE_KNOWN_FOR: Final = 180 * 86400
"""Seconds, as long as users knows a network."""
_TRY_AGAIN: Final = "This works again soon. Please try again in a moment."


@dataclass(frozen=True, slots=True)
class BrowserCookie:
    """The browser's secret: of a signed-in person, or, before that, only of the forms that it was shown.

    `is_new`: the browser sent none, or several, of which a sibling domain may have set one. It is to be set then.
    """

    value: str
    name: str
    is_secure: bool
    is_new: bool

    @classmethod
    def of(cls, request: Request) -> Self:
        settings: Settings = request.state.settings
        is_secure = settings.public_url.startswith("https://")
        name = "__Host-waybill" if is_secure else "waybill"
        pairs = [pair.strip().partition("=") for pair in ";".join(request.headers.getlist("cookie")).split(";")]
        values = [value for key, _, value in pairs if key == name]
        if len(values) == 1 and _SECRET.fullmatch(values[0]):
            return cls(values[0], name, is_secure, is_new=False)
        return cls(_new_secret(), name, is_secure, is_new=True)

    def renewed(self) -> "BrowserCookie":
        return dataclasses.replace(self, value=_new_secret(), is_new=True)

    def set(self, response: Response) -> None:
        """For as long as the browser runs; the server ends a session earlier."""
        response.set_cookie(self.name, self.value or "", path="/", httponly=True, samesite="lax", secure=self.is_secure)

    def clear(self, response: Response) -> None:
        response.delete_cookie(self.name, path="/", httponly=True, samesite="lax", secure=self.is_secure)


class DeviceCookie:
    """Outlives the browser's session, and signs nobody in: it shows that this person has signed in here before."""

    def __init__(self, request: Request) -> None:
        settings: Settings = request.state.settings
        self._secret = settings.refresh_token_bytes
        self._is_secure = settings.public_url.startswith("https://")
        self._name = "__Host-waybill-device" if self._is_secure else "waybill-device"
        found = unseal(request.cookies.get(self._name, ""), self._secret)
        self.device: KnownDevice | None = None
        self.since: datetime | None = None
        if found is not None:
            self.device, self.since = found

    def set(self, response: Response, device: KnownDevice) -> None:
        response.set_cookie(
            self._name,
            seal(device, self._secret, now=utc_now()),
            max_age=_DEVICE_KNOWN_FOR,
            path="/",
            httponly=True,
            samesite="lax",
            secure=self._is_secure,
        )


def _new_secret() -> str:
    return secrets.token_urlsafe(32)


class PageRoute(ApiRoute):
    """Shows errors as pages."""

    max_body: ClassVar[int] = 64 * 1024

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def with_error_pages(request: Request) -> Response:
            try:
                return await handle(request)
            except AppError as error:
                text = _TRY_AGAIN if error.status == 503 else f"{error.detail.removesuffix('.')}."
                return page(message_page(_title(error.status), text), status=error.status, headers=error.headers)
            except HTTPException as error:
                if error.status_code != 413:
                    raise
                return page(message_page(_title(413), "The form is too large."), status=413)
            except Exception as error:
                if not is_outage(error):
                    raise
                return page(message_page(_title(503), _TRY_AGAIN), status=503, headers={"Retry-After": "2"})

        return with_error_pages


def page(
    html: str,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    request: AuthorizationRequest | None = None,
    targets: tuple[str, ...] = (),
) -> HTMLResponse:
    """A page whose forms lead to this site, to the client of the `request`, and to `targets` of the policy."""
    if request is not None:
        targets = (*targets, policy_source(request.redirect_uri))
    return HTMLResponse(
        html, status_code=status, headers={**page_headers(form_targets=("'self'", *targets)), **(headers or {})}
    )


def see_other(location: str) -> Response:
    """303: a browser never repeats the form that led here (RFC 9700 §4.12).

    Raises `InvalidRequest` for what is in no URI: a form's body may hold line breaks, which would end the header.
    """
    if not _URI.fullmatch(location):
        raise InvalidRequest("The request is malformed")
    return Response(
        status_code=303, headers={"Location": location, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
    )


async def read_form(request: Request) -> Form:
    """Raises `CrossSiteForm` for a form from elsewhere, `UnsupportedMediaType`, and `InvalidRequest`.

    Modern browsers send both headers. A program may send neither; then the sealed state alone must convince.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site not in (None, "same-origin") or (origin is not None and origin not in _own_origins(request)):
        raise CrossSiteForm
    content_type, body = request.headers.get("content-type", ""), await request.body()
    if "content-encoding" in request.headers or (body and not content_type.lower().startswith(FORM_TYPE)):
        raise UnsupportedMediaType(f"The body must be {FORM_TYPE}, without an encoding")
    return Form(content_type or FORM_TYPE, body)


def _own_origins(request: Request) -> set[str]:
    """The public one, and the one by which this browser reached us, such as another name of the gateway."""
    public = urlsplit(request.state.settings.public_url)
    return {f"{public.scheme}://{public.netloc}", f"{public.scheme}://{request.headers.get('host', '')}"}


def _title(status: int) -> str:
    return "Please try again" if status in {429, 503} else "This did not work"
