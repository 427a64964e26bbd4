"""Auth's settings, in addition to those of every service."""

from datetime import timedelta
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, Field, SecretStr, model_validator

from auth.redirect_uris import RedirectUri
from common.settings import ServiceSettings, key_bytes, resource


class StaticClient(BaseModel, frozen=True):
    """One of our services as an OAuth client. Auth knows only the SHA-256 of its secret, in hex."""

    client_id: Annotated[str, Field(pattern=r"[a-z][a-z0-9-]{0,63}")]
    secret_sha256: Annotated[str, Field(pattern=r"[0-9a-f]{64}")]
    scopes: tuple[str, ...] = ()


class Settings(ServiceSettings):
    service: ClassVar[str] = "auth"

    users_url: str
    """Users' internal URL, where auth has passwords verified."""
    key_encryption_key: SecretStr
    """32 bytes in base64: encrypts the private signing keys in the database. `keys rewrap` changes it."""
    refresh_token_secret: SecretStr
    """At least 32 bytes in base64: refresh tokens are derived from it, and the digests by which log lines name accounts
    and networks. A change ends no session, and gives all of them new digests."""
    service_clients: tuple[StaticClient, ...] = ()
    """Our own services as OAuth clients: a JSON list with `client_id`, `secret_sha256` and `scopes` of each. Two
    entries with one `client_id` allow two secrets, while the first is replaced by the second."""
    resource_servers: tuple[Annotated[str, Field(pattern=r"^[a-z]+$")], ...] = ("auth", "users", "orders", "notifier")
    """Names of our services. A token names all of them as its audience unless the client requests fewer."""
    other_resources: tuple[Annotated[str, Field(pattern=r"^https?://[^\s#]+$")], ...] = ()
    """Resource URIs (RFC 8707 §2) of services outside this system: a JSON list. A token names one only on request."""

    web_redirect_uris: tuple[RedirectUri, ...] = ()
    """Redirect URIs of the first-party client `web`, a JSON list such as `["https://shop.example/signed-in"]`. They are
    also where a sign-out may lead to."""

    admin_second_factor: Literal["required", "advised"] = "advised"
    """`required`: a session that an administrator began without a second factor has not the role, only what every
    person may do, such as adding one. `advised`: the log and the token response say that there is none."""
    signing_algorithm: Literal["ES256", "RS256"] = "ES256"
    """Algorithm of new signing keys. ES256 has the shorter keys and signatures; RS256 is for verifiers without it.
    After a change the next key is published at once."""
    access_token_seconds: Annotated[int, Field(ge=30, le=300)] = 300
    """Lifetime of an access token, in seconds. Verifiers reject tokens that live longer than 300 s."""
    refresh_window_seconds: Annotated[float, Field(ge=0, le=60)] = 10.0
    """Seconds after a refresh in which the same refresh token gets the same response, because the client may have lost
    the first one. Later it counts as stolen. 10 s allows for a client's timeout and retry."""
    refresh_idle_days: Annotated[float, Field(gt=0, le=365)] = 14
    """Days without a refresh after which a session ends."""
    refresh_absolute_days: Annotated[float, Field(gt=0, le=365)] = 30
    """Days after which a session ends, however often it is refreshed."""
    browser_session_hours: Annotated[float, Field(gt=0, le=720)] = 12
    """Hours for which a browser stays signed in on auth's own pages, so that further clients ask for no password."""
    key_pending_seconds: Annotated[int, Field(ge=0)] = 15 * 60
    """Seconds between the publication of a key and its first signature, because verifiers and gateways cache the key
    set (300 s by its `max-age`). Our own services fetch a new key within 7 s; below that they reject some tokens."""
    key_active_days: Annotated[float, Field(gt=0)] = 30
    """Days for which a key signs before its successor replaces it."""

    @model_validator(mode="after")
    def _secrets_are_keys(self) -> Self:
        if len(key_bytes(self.key_encryption_key)) != 32:
            raise ValueError("key_encryption_key must be 32 bytes in base64")
        if len(key_bytes(self.refresh_token_secret)) < 32:
            raise ValueError("refresh_token_secret must be at least 32 bytes in base64")
        return self

    @property
    def resources(self) -> tuple[str, ...]:
        """Resource URIs of our services."""
        return tuple(map(resource, self.resource_servers))

    @property
    def key_encryption_bytes(self) -> bytes:
        return key_bytes(self.key_encryption_key)

    @property
    def refresh_token_bytes(self) -> bytes:
        return key_bytes(self.refresh_token_secret)

    @property
    def access_token_lifetime(self) -> timedelta:
        return timedelta(seconds=self.access_token_seconds)
