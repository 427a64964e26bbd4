"""The OAuth endpoints (RFC 6749, 7009, 7662) and documents (RFC 8414, 7517). Endpoints send OAuth errors."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, Final

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from auth.errors import ContentTooLarge, EncodedContent, InvalidRequest, OAuthError, TemporarilyUnavailable
from auth.oauth.answers import Introspection, Metadata, OAuthErrorAnswer, PublishedKeys, TokenAnswer
from auth.oauth.form import ASSERTION_TYPE, ClientCredentials, Form, client_credentials
from auth.oauth.grants import TokenRequest
from auth.oauth.metadata import metadata
from common.db.outages import is_outage
from common.errors import Unavailable
from common.web import ApiRoute, ApiRouter, responses
from common.web.headers import client_address, is_not_modified


class OAuthRoute(ApiRoute):
    """POST endpoints report outages and too large bodies as OAuth errors too. The GET documents send problems."""

    max_body: ClassVar[int] = 64 * 1024

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def with_oauth_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except OAuthError:
                raise
            except Exception as error:
                if isinstance(error, HTTPException) and error.status_code == 413:
                    raise ContentTooLarge from error
                if isinstance(error, Unavailable) or is_outage(error):
                    raise TemporarilyUnavailable(headers={"Retry-After": "2"}) from error
                raise

        return with_oauth_errors if "POST" in (self.methods or ()) else handle


router: Final = ApiRouter(tags=["oauth"], route_class=OAuthRoute)

JWKS_MAX_AGE: Final = 300
"""Seconds. Well below the default `key_pending_seconds`, so that caches hold a new key before it signs."""
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def _oauth_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    declared = responses(413)  # as a problem too: the gateway refuses such a body with one
    declared[413]["model"] = OAuthErrorAnswer
    for status in (415, *statuses):
        declared[status] = {"model": OAuthErrorAnswer, "description": "OAuth error (RFC 6749 §5.2)"}
    return declared


def _form_of(required: str, fields: Mapping[str, str]) -> dict[str, Any]:
    properties = {name: {"type": "string", "description": text} for name, text in fields.items()}
    schema = {"type": "object", "required": [required], "properties": properties}
    return {"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}}


_CLIENT_FIELDS: Final = {
    "client_id": "The client's id, unless sent as Basic credentials. `web` by default.",
    "client_secret": "The client's secret, if it has one, unless sent as Basic credentials.",
    "client_assertion": "Of a client with keys: a JWT (RFC 7523), good once and for at most 300 s.",
    "client_assertion_type": f"`{ASSERTION_TYPE}`, with `client_assertion`.",
}

_TOKEN_FIELDS: Final = {
    "token": "A refresh token or an access token.",
    "token_type_hint": "Accepted and ignored: the token itself shows its type.",
    **_CLIENT_FIELDS,
}


@router.post(
    "/token",
    response_model_exclude_none=True,
    responses=_oauth_errors(400, 401, 429, 503),
    openapi_extra=_form_of(
        "grant_type",
        {
            "grant_type": "`authorization_code`, `password`, `refresh_token` or `client_credentials`.",
            "code": "The code from the redirect (for `authorization_code`).",
            "redirect_uri": "The redirect URI of the authorization request (for `authorization_code`).",
            "code_verifier": "The code verifier (RFC 7636) (for `authorization_code`).",
            "username": "The person's e-mail address (for `password`).",
            "password": "The person's password (for `password`).",
            "otp": "A code of the authenticator app, or a recovery code (for `password`, with a second factor).",
            "refresh_token": "The newest refresh token of a session (for `refresh_token`). With `password` it is "
            "optional: one of an earlier session, ended or not, shows that the person has signed in on this device "
            "before. Failed sign-ins elsewhere then do not delay this one.",
            "scope": "Scopes, separated by spaces, to receive fewer than all that are granted by default.",
            "resource": "The audience of the access token (RFC 8707). May be repeated. By default all services.",
            **_CLIENT_FIELDS,
        },
    ),
)
async def issue_token(request: Request, response: Response) -> TokenAnswer:
    """Exchanges a grant for tokens."""
    form, credentials = await _read(request)
    token_request = TokenRequest(
        form=form,
        credentials=credentials,
        network=client_address(request),
        device=request.headers.get("user-agent", ""),
    )
    answer: TokenAnswer = await request.state.token_endpoint.issue(token_request)
    response.headers.update(_NO_STORE)
    return answer


@router.post(
    "/revoke",
    response_class=Response,
    responses=_oauth_errors(400, 401, 503),
    openapi_extra=_form_of("token", _TOKEN_FIELDS),
)
async def revoke_token(request: Request) -> Response:
    """Revokes a token and ends its session (RFC 7009). An unknown or expired token gets the same response."""
    form, credentials = await _read(request)
    await request.state.token_inspection.revoke(form, credentials)
    return Response(status_code=200, headers=_NO_STORE)


@router.post(
    "/introspect",
    response_model_exclude_none=True,
    responses=_oauth_errors(400, 401, 503),
    openapi_extra=_form_of("token", _TOKEN_FIELDS),
)
async def introspect_token(request: Request, response: Response) -> Introspection:
    """Reports whether a token is active, and its contents (RFC 7662). For clients with a secret."""
    form, credentials = await _read(request)
    answer: Introspection = await request.state.token_inspection.introspect(form, credentials)
    response.headers.update(_NO_STORE)
    return answer


@router.get("/.well-known/oauth-authorization-server")
async def read_metadata(request: Request, response: Response) -> Metadata:
    """The authorization server's metadata, from which clients configure themselves (RFC 8414)."""
    response.headers["Cache-Control"] = f"public, max-age={JWKS_MAX_AGE}"
    return metadata(request.state.settings)


@router.get("/.well-known/openid-configuration")
async def read_openid_configuration(request: Request, response: Response) -> Metadata:
    """The same for OpenID Connect clients (OpenID Connect Discovery 1.0 §4)."""
    return await read_metadata(request, response)


@router.get("/.well-known/jwks.json", response_model=PublishedKeys, responses={304: {"description": "Not modified"}})
async def read_keys(request: Request) -> Response:
    """The keys with which to verify access tokens (RFC 7517)."""
    key_set = request.state.keyring.key_set
    headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE}", "ETag": key_set.etag}
    if is_not_modified(request, key_set.etag):
        return Response(status_code=304, headers=headers)
    return Response(key_set.body, media_type="application/json", headers=headers)


async def _read(request: Request) -> tuple[Form, ClientCredentials | None]:
    if "content-encoding" in request.headers:
        raise EncodedContent(headers={"Accept-Encoding": "identity"})
    content_types = request.headers.getlist("content-type")
    if len(content_types) > 1:
        raise InvalidRequest("More than one Content-Type header")
    form = Form("".join(content_types), await request.body())
    return form, client_credentials(form, request.headers.getlist("authorization"))


async def render_oauth_error(_request: Request, error: OAuthError) -> Response:
    """RFC 6749 §5.2."""
    body = {"error": error.code, "error_description": error.detail}
    return JSONResponse(body, status_code=error.status, headers=_NO_STORE | error.headers)
