"""Client authentication (RFC 6749 §2.3): of first-party apps, our own services, and managed clients."""

import enum
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from auth import queries
from auth.clients import secrets as client_secrets
from auth.clients.registry import first_party_grant_types
from auth.errors import InvalidClient
from auth.models import Client
from auth.oauth.client_assertions import read_client_id, verify_assertion
from auth.oauth.form import ClientCredentials
from auth.scopes import PERSON_SCOPES
from auth.settings import Settings
from common.db.database import Database, utc_now
from common.observability.log_limit import limited_logger
from common.security.first_party import FIRST_PARTY

log = limited_logger(__name__)

FAILED: Final = Counter("waybill_client_authentications_failed_total", "Client authentications that were refused.")


class ClientKind(enum.Enum):
    FIRST_PARTY = "first-party"
    SERVICE = "service"
    MANAGED = "managed"


@dataclass(frozen=True, slots=True)
class AuthenticatedClient:
    client_id: str
    kind: ClientKind
    grant_types: frozenset[str]
    scopes: tuple[str, ...]
    session_version: int = 1
    is_public: bool = False


async def authenticate_client(
    credentials: ClientCredentials | None, settings: Settings, database: Database
) -> AuthenticatedClient:
    """The client with these credentials. Raises `InvalidClient`, without naming the cause."""
    if credentials is None:
        raise _refusal()
    if credentials.assertion is not None:
        return await _by_assertion(credentials.assertion, credentials.client_id, settings, database)
    if credentials.client_id in FIRST_PARTY:
        if credentials.secret is not None:
            raise _refusal(credentials.client_id)
        # Public clients. Only they may handle a password: RFC 9700 §2.4 forbids the password grant to others.
        grant_types = first_party_grant_types(settings)
        return AuthenticatedClient(
            credentials.client_id, ClientKind.FIRST_PARTY, grant_types, PERSON_SCOPES, is_public=True
        )
    # A service is listed once for each secret that is valid: twice while its secret is replaced (docs/changing.md).
    if statics := [static for static in settings.service_clients if static.client_id == credentials.client_id]:
        for static in statics:
            if client_secrets.is_right(credentials.secret, bytes.fromhex(static.secret_sha256)):
                grant_types = frozenset({"client_credentials"})
                return AuthenticatedClient(static.client_id, ClientKind.SERVICE, grant_types, static.scopes)
        raise _refusal(credentials.client_id)
    async with database.transaction() as session:
        managed = await queries.client(session, credentials.client_id)
    if managed is None:
        raise _refusal()
    if not _is_authentic(managed, credentials.secret):
        raise _refusal(managed.id)
    return _authenticated(managed)


async def _by_assertion(assertion: str, client_id: str, settings: Settings, database: Database) -> AuthenticatedClient:
    """RFC 7523 §3. `client_id` is what the form names, and may be empty."""
    try:
        named = read_client_id(assertion)
    except InvalidClient:
        raise _refusal() from None
    async with database.transaction() as session:
        managed = await queries.client(session, named)
    if managed is None or client_id not in ("", named):
        raise _refusal()
    try:
        use = verify_assertion(assertion, managed, settings, utc_now())
    except InvalidClient:
        raise _refusal(managed.id) from None
    async with database.transaction() as session:
        is_first = await queries.use_assertion(session, use.digest, use.expires_at)
    if not is_first:
        raise _refusal(managed.id)
    return _authenticated(managed)


def _authenticated(client: Client) -> AuthenticatedClient:
    return AuthenticatedClient(
        client.id,
        ClientKind.MANAGED,
        frozenset(client.grant_types),
        tuple(client.scopes),
        client.session_version,
        client.is_public,
    )


def _is_authentic(client: Client, secret: str | None) -> bool:
    """A public client has no secret: it proves at the code's exchange that it began the flow (RFC 7636)."""
    if client.is_public:
        return secret is None
    if client.jwks is not None:
        return False
    return any(client_secrets.is_right(secret, known) for known in client.valid_secret_hashes(utc_now()))


def _refusal(client_id: str | None = None) -> InvalidClient:
    """Counts and logs it. Pass the id of a known client only: any other may be a person's address or a secret."""
    FAILED.inc()
    log.info("client authentication failed", client_id=client_id)
    return InvalidClient()
