"""Refusals. OAuth endpoints send theirs in the format of RFC 6749 §5.2, all other routes send problems (RFC 9457)."""

from uuid import UUID

from common.errors import AppError, BadRequest, Conflict, Forbidden, NotFound, Unprocessable


class OAuthError(AppError):
    """`code` is sent as `error`, the detail as `error_description`.

    `account` is never sent: it names the account of a sign-in that users has refused.
    """

    account: UUID | None = None


class InvalidRequest(OAuthError):
    code, title = "invalid_request", "The request is malformed"


class ContentTooLarge(InvalidRequest):
    status, title = 413, "The body is larger than 64 KiB"


class EncodedContent(InvalidRequest):
    status, title = 415, "The body must have no Content-Encoding"


class InvalidClient(OAuthError):
    status, code, title = 401, "invalid_client", "Client authentication failed"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Basic realm="waybill", charset="UTF-8"'})


class InvalidGrant(OAuthError):
    code, title = "invalid_grant", "The grant is invalid, expired or revoked"


class MfaRequired(OAuthError):
    """The password is right, and the account has a second factor whose code is missing. No RFC defines this `error`."""

    code, title = "mfa_required", "A code of the second factor is required"


class UnauthorizedClient(OAuthError):
    code, title = "unauthorized_client", "The client may not use this grant type"


class UnsupportedGrantType(OAuthError):
    code, title = "unsupported_grant_type", "The grant type is not supported"


class InvalidScope(OAuthError):
    code, title = "invalid_scope", "The scope is unknown, malformed or exceeds what was granted"


class UnsupportedResponseType(OAuthError):
    code, title = "unsupported_response_type", "response_type must be code"


class AccessDenied(OAuthError):
    code, title = "access_denied", "The person did not allow it"


class LoginRequired(OAuthError):
    """OpenID Connect Core 1.0 §3.1.2.6, like the next four."""

    code, title = "login_required", "The person must sign in"


class ConsentRequired(OAuthError):
    code, title = "consent_required", "The person has not allowed this yet"


class RequestNotSupported(OAuthError):
    code, title = "request_not_supported", "request is not supported"


class RequestUriNotSupported(OAuthError):
    code, title = "request_uri_not_supported", "request_uri is not supported"


class RegistrationNotSupported(OAuthError):
    code, title = "registration_not_supported", "registration is not supported"


class InvalidTarget(OAuthError):
    """RFC 8707 §2."""

    code, title = "invalid_target", "The resource is unknown or was not granted"


class Throttled(OAuthError):
    """The status is that of RFC 6585 §4. No RFC defines an `error` for it."""

    status, code, title = 429, "slow_down", "Too many attempts, try again later"


class TemporarilyUnavailable(OAuthError):
    status, code, title = 503, "temporarily_unavailable", "Temporarily unavailable, try again soon"


class UnknownClient(InvalidRequest):
    title = "This link does not belong to an application that is registered here"


class FormExpired(BadRequest):
    code, title = "form_expired", "This page has expired"


class CrossSiteForm(Forbidden):
    code, title = "cross_site_form", "This form was sent from another site"


class PublicClient(Conflict):
    code, title = "public_client", "A public client has no secret"


class ClientHasKeys(Conflict):
    code, title = "client_has_keys", "A client with keys has no secret: change its jwks"


class InvalidRegistration(Unprocessable):
    code, title = "invalid_registration", "These grant types and redirect URIs do not go together"


class GrantNotFound(NotFound):
    code, title = "grant_not_found", "This client has no access that could be withdrawn"


class SessionNotFound(NotFound):
    code, title = "session_not_found", "No such session"


class ClientNotFound(NotFound):
    code, title = "client_not_found", "No such client"
