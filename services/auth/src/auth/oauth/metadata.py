"""What the server can do, as clients read it (RFC 8414, OpenID Connect Discovery 1.0)."""

from typing import Final

from auth.oauth.answers import Metadata
from auth.scopes import IDENTITY_SCOPES, MANAGED_SCOPES, PERSON_SCOPES
from auth.settings import Settings

_CLIENT_AUTHENTICATION: Final = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
_ASSERTION_ALGORITHMS: Final = ["ES256", "RS256"]
_CLAIMS: Final = [
    *("iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "sid", "at_hash", "amr"),
    *("name", "email", "email_verified"),
]


def metadata(settings: Settings) -> Metadata:
    issuer = settings.public_url
    grant_types = ["authorization_code", "password", "refresh_token", "client_credentials"]
    if not settings.has_password_grant:
        grant_types.remove("password")
    return Metadata(
        issuer=issuer,
        authorization_endpoint=f"{issuer}/authorize",
        token_endpoint=f"{issuer}/token",
        userinfo_endpoint=f"{issuer}/userinfo",
        end_session_endpoint=f"{issuer}/sign-out",
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        revocation_endpoint=f"{issuer}/revoke",
        introspection_endpoint=f"{issuer}/introspect",
        scopes_supported=list(dict.fromkeys((*IDENTITY_SCOPES, *PERSON_SCOPES, *MANAGED_SCOPES))),
        response_types_supported=["code"],
        response_modes_supported=["query"],
        grant_types_supported=grant_types,
        code_challenge_methods_supported=["S256"],
        prompt_values_supported=["none", "login", "consent"],
        claims_supported=_CLAIMS,
        subject_types_supported=["public"],
        id_token_signing_alg_values_supported=[settings.signing_algorithm],
        authorization_response_iss_parameter_supported=True,
        claims_parameter_supported=False,
        request_parameter_supported=False,
        request_uri_parameter_supported=False,
        token_endpoint_auth_methods_supported=[*_CLIENT_AUTHENTICATION, "none"],
        revocation_endpoint_auth_methods_supported=[*_CLIENT_AUTHENTICATION, "none"],
        introspection_endpoint_auth_methods_supported=_CLIENT_AUTHENTICATION,
        token_endpoint_auth_signing_alg_values_supported=_ASSERTION_ALGORITHMS,
        revocation_endpoint_auth_signing_alg_values_supported=_ASSERTION_ALGORITHMS,
        introspection_endpoint_auth_signing_alg_values_supported=_ASSERTION_ALGORITHMS,
        service_documentation=f"{issuer}/docs/auth",
    )
