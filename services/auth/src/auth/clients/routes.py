"""Management of OAuth clients, by administrators."""

from functools import partial
from typing import Final

from fastapi import Response

from auth import queries
from auth.clients import handlers
from auth.deps import PrincipalDep, admin_only, recent_sign_in
from auth.errors import ClientNotFound
from auth.models import Client
from auth.schemas import ClientChange, ClientOut, ClientWithSecret, NewSecret, RegisterClient
from common.db.database import utc_now
from common.web import ApiRouter, responses
from common.web.pagination import Page, PageDep, instant
from common.web.session import SessionDep

router: Final = ApiRouter(prefix="/clients", tags=["clients"], dependencies=[admin_only])


@router.post("", status_code=201, dependencies=[recent_sign_in], response_model_exclude_unset=True)
async def register_client(
    body: RegisterClient, principal: PrincipalDep, session: SessionDep, response: Response
) -> ClientWithSecret:
    """Registers a client. Only this response contains its secret. A public client has none, nor has one with keys."""
    client, secret = await handlers.register_client(
        session,
        name=body.name,
        grant_types=body.grant_types,
        scopes=body.scopes,
        redirect_uris=body.redirect_uris,
        post_logout_redirect_uris=body.post_logout_redirect_uris,
        is_public=body.public,
        jwks=body.jwks,
        actor=principal.subject,
        now=utc_now(),
    )
    response.headers["Location"] = f"/clients/{client.id}"
    response.headers["Cache-Control"] = "no-store"
    return _with_secret(client, secret)


@router.get("")
async def list_clients(session: SessionDep, page: PageDep) -> Page[ClientOut]:
    """All managed clients, newest first."""
    return await page.load(partial(queries.clients, session), by={"created_at": instant, "id": str}, item=_out)


@router.get("/{client_id}", responses=responses(404))
async def get_client(client_id: str, session: SessionDep) -> ClientOut:
    """The client, without its secret."""
    client = await queries.client(session, client_id)
    if client is None:
        raise ClientNotFound
    return _out(client)


@router.delete("/{client_id}", status_code=204, responses=responses(404))
async def delete_client(client_id: str, principal: PrincipalDep, session: SessionDep) -> None:
    """Deletes a client. All services refuse its tokens within a second."""
    await handlers.delete_client(session, client_id, actor=principal.subject, now=utc_now())


@router.patch("/{client_id}", dependencies=[recent_sign_in], responses=responses(404))
async def change_client(client_id: str, body: ClientChange, principal: PrincipalDep, session: SessionDep) -> ClientOut:
    """Changes a client. A scope that it loses is in none of its next tokens."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    return _out(await handlers.change_client(session, client_id, changes, actor=principal.subject))


@router.post("/{client_id}/secret", status_code=201, dependencies=[recent_sign_in], responses=responses(404, 409))
async def change_client_secret(
    client_id: str, principal: PrincipalDep, session: SessionDep, response: Response, body: NewSecret | None = None
) -> ClientWithSecret:
    """Replaces a client's secret. The old one stays good for 24 hours, or with `revoke_previous` is void at once, and
    so are all tokens obtained with it.
    """
    revoke_previous = body is not None and body.revoke_previous
    client, secret = await handlers.change_client_secret(
        session, client_id, revoke_previous=revoke_previous, actor=principal.subject, now=utc_now()
    )
    response.headers["Cache-Control"] = "no-store"
    return _with_secret(client, secret)


def _out(client: Client) -> ClientOut:
    return ClientOut(
        client_id=client.id,
        name=client.name,
        grant_types=client.grant_types,
        scopes=client.scopes,
        redirect_uris=client.redirect_uris,
        post_logout_redirect_uris=client.post_logout_redirect_uris,
        public=client.is_public,
        jwks=client.jwks,
        created_at=client.created_at,
    )


def _with_secret(client: Client, secret: str | None) -> ClientWithSecret:
    shown = {} if secret is None else {"client_secret": secret}
    return ClientWithSecret(**_out(client).model_dump(), **shown)
