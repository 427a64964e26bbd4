"""Management of OAuth clients, by administrators."""

from functools import partial
from typing import Final

from fastapi import Response

from auth import queries
from auth.clients import handlers
from auth.deps import PrincipalDep, admin_only
from auth.errors import ClientNotFound
from auth.models import Client
from auth.schemas import ClientOut, ClientWithSecret, RegisterClient
from common.db.database import utc_now
from common.web import ApiRouter, responses
from common.web.pagination import Page, PageDep, instant
from common.web.session import SessionDep

router: Final = ApiRouter(prefix="/clients", tags=["clients"], dependencies=[admin_only])


@router.post("", status_code=201)
async def register_client(
    body: RegisterClient, principal: PrincipalDep, session: SessionDep, response: Response
) -> ClientWithSecret:
    """Registers a client. Only this response contains its secret."""
    client, secret = await handlers.register_client(
        session,
        name=body.name,
        grant_types=body.grant_types,
        scopes=body.scopes,
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


@router.post("/{client_id}/secret", status_code=201, responses=responses(404))
async def change_client_secret(
    client_id: str, principal: PrincipalDep, session: SessionDep, response: Response
) -> ClientWithSecret:
    """Replaces a client's secret. The old secret, and all tokens obtained with it, are void."""
    client, secret = await handlers.change_client_secret(session, client_id, actor=principal.subject, now=utc_now())
    response.headers["Cache-Control"] = "no-store"
    return _with_secret(client, secret)


def _out(client: Client) -> ClientOut:
    return ClientOut(
        client_id=client.id,
        name=client.name,
        grant_types=client.grant_types,
        scopes=client.scopes,
        created_at=client.created_at,
    )


def _with_secret(client: Client, secret: str) -> ClientWithSecret:
    return ClientWithSecret(**_out(client).model_dump(), client_secret=secret)
