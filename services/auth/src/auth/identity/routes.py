"""`/userinfo`: users owns names and addresses, and says them with each request."""

from typing import Annotated, Final

from fastapi import Depends, Request, Response

from auth.oauth.answers import UserInfo
from auth.oauth.form import Form
from auth.oauth.users_client import fetch_profile
from common.errors import Unauthorized
from common.security.guards import Guard
from common.security.tokens import InvalidToken, Principal
from common.web import ApiRouter

router: Final = ApiRouter(tags=["identity"])


class _TokenInForm(Guard):
    """Accepts the token also as the form field `access_token` (RFC 6750 §2.2)."""

    async def __call__(self, request: Request) -> Principal:
        is_form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        if "authorization" not in request.headers and is_form:
            form = Form(request.headers["content-type"], await request.body())
            token = form.get("access_token")
            if token is None:
                raise Unauthorized("This needs a bearer token", headers={"WWW-Authenticate": "Bearer"})
            request.state.principal = await request.state.tokens.verify(token)
        return await super().__call__(request)


InHeader = Annotated[Principal, Depends(Guard(scopes=("openid",)))]
InForm = Annotated[Principal, Depends(_TokenInForm(scopes=("openid",)))]


@router.get("/userinfo", response_model_exclude_none=True)
async def read_userinfo(request: Request, response: Response, principal: InHeader) -> UserInfo:
    """Who the token's person is: `name` with the scope `profile`, `email` and `email_verified` with `email`."""
    return await _answer(request, response, principal)


@router.post("/userinfo", response_model_exclude_none=True)
async def read_userinfo_by_post(request: Request, response: Response, principal: InForm) -> UserInfo:
    """The same by POST."""
    return await _answer(request, response, principal)


async def _answer(request: Request, response: Response, principal: Principal) -> UserInfo:
    user_id = principal.user_id
    response.headers["Cache-Control"] = "no-store"
    if principal.scopes.isdisjoint({"profile", "email"}):
        return UserInfo(sub=str(user_id))
    profile = await fetch_profile(request.state.users, user_id)
    if profile is None:
        raise InvalidToken("The account does not exist any more")
    shown = UserInfo(sub=str(user_id))
    if "profile" in principal.scopes:
        shown = shown.model_copy(update={"name": profile.name})
    if "email" in principal.scopes:
        shown = shown.model_copy(update={"email": profile.email, "email_verified": profile.email_verified})
    return shown
