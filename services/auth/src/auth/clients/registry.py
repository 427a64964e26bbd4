"""What is registered of a client: of our own in the code and settings, of others by an administrator."""

from dataclasses import dataclass
from typing import Final

from auth import queries
from auth.models import Client
from auth.scopes import DELEGABLE, IDENTITY_SCOPES, PERSON_SCOPES
from auth.settings import Settings
from common.db.database import Database
from common.security.first_party import FIRST_PARTY

DEFAULT_CLIENT: Final = "web"
_NAMES: Final = {"web": "Waybill", "console": "Waybill's console"}


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """What the pages need to know of a client. `scopes` are those that a person can allow it."""

    client_id: str
    name: str
    is_first_party: bool
    grant_types: frozenset[str]
    scopes: tuple[str, ...]
    redirect_uris: tuple[str, ...]
    post_logout_redirect_uris: tuple[str, ...]


async def find_client(client_id: str, settings: Settings, database: Database) -> RegisteredClient | None:
    """None for an unknown client, and for one of our services, which never acts for a person."""
    if client_id in FIRST_PARTY:
        return _first_party(client_id, settings)
    async with database.transaction() as session:
        client = await queries.client(session, client_id)
    return None if client is None else _managed(client)


def first_party_grant_types(settings: Settings) -> frozenset[str]:
    own = {"authorization_code", "refresh_token"}
    return frozenset(own | {"password"} if settings.has_password_grant else own)


def _first_party(client_id: str, settings: Settings) -> RegisteredClient:
    if client_id == DEFAULT_CLIENT:
        pages = (f"{settings.public_url}/docs/{name}/assets/oauth2-redirect.html" for name in settings.resource_servers)
        redirect_uris, after_sign_out = (*settings.web_redirect_uris, *pages), settings.web_redirect_uris
    else:
        redirect_uris = (f"{settings.public_url}/{client_id}/callback",)
        after_sign_out = (f"{settings.public_url}/{client_id}",)
    return RegisteredClient(
        client_id=client_id,
        name=_NAMES[client_id],
        is_first_party=True,
        grant_types=first_party_grant_types(settings),
        scopes=(*PERSON_SCOPES, *IDENTITY_SCOPES),
        redirect_uris=redirect_uris,
        post_logout_redirect_uris=after_sign_out,
    )


def _managed(client: Client) -> RegisteredClient:
    return RegisteredClient(
        client_id=client.id,
        name=client.name,
        is_first_party=False,
        grant_types=frozenset(client.grant_types),
        scopes=tuple(scope for scope in client.scopes if scope in DELEGABLE),
        redirect_uris=tuple(client.redirect_uris),
        post_logout_redirect_uris=tuple(client.post_logout_redirect_uris),
    )
