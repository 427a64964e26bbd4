"""Response bodies of the OAuth endpoints. Plain pydantic models, because grants and introspection know no web."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class TokenAnswer(Answer):
    """RFC 6749 §5.1."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the scheme's name
    expires_in: Annotated[int, Field(description="Seconds until the access token expires.")]
    refresh_token: str | None = None
    id_token: Annotated[str | None, Field(description="Who signed in (OpenID Connect), with the scope `openid`.")] = (
        None
    )
    scope: Annotated[str, Field(description="The granted scopes, separated by spaces.")]
    second_factor: Annotated[
        Literal["required", "advised"] | None,
        Field(description="For an administrator who signed in without one. `required`: the tokens have not the role."),
    ] = None


class OAuthErrorAnswer(Answer):
    """RFC 6749 §5.2."""

    error: str
    error_description: str


class Introspection(Answer):
    """RFC 7662 §2.2. For a token that is not active, `active` is the only member."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    token_type: str | None = None
    sub: str | None = None
    sid: str | None = None
    iss: str | None = None
    aud: list[str] | None = None
    exp: int | None = None
    iat: int | None = None
    jti: str | None = None
    roles: list[str] | None = None


class Metadata(Answer):
    """RFC 8414 §2, OpenID Connect Discovery 1.0 §3, RFC 9207 §3, RP-Initiated Logout 1.0 §2.1."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    end_session_endpoint: str
    jwks_uri: str
    revocation_endpoint: str
    introspection_endpoint: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    response_modes_supported: list[str]
    grant_types_supported: list[str]
    code_challenge_methods_supported: list[str]
    prompt_values_supported: list[str]
    claims_supported: list[str]
    subject_types_supported: list[str]
    id_token_signing_alg_values_supported: list[str]
    authorization_response_iss_parameter_supported: bool
    claims_parameter_supported: bool
    request_parameter_supported: bool
    request_uri_parameter_supported: bool
    token_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]
    token_endpoint_auth_signing_alg_values_supported: list[str]
    revocation_endpoint_auth_signing_alg_values_supported: list[str]
    introspection_endpoint_auth_signing_alg_values_supported: list[str]
    service_documentation: str


class UserInfo(Answer):
    """OpenID Connect Core 1.0 §5.3.2. `name` with the scope `profile`; the address with `email`."""

    sub: str
    name: str | None = None
    email: str | None = None
    email_verified: bool | None = None


class PublishedKeys(Answer):
    """RFC 7517 §5."""

    keys: list[dict[str, Any]]
