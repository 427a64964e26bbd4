"""HTTP to handlers."""

from uuid import UUID

from fastapi import Response

from common.web import ApiRouter, responses
from common.web.session import SessionDep
from samples import handlers, queries
from samples.deps import CallerDep
from samples.schemas import ItemIn, ItemOut

samples = ApiRouter(prefix="/samples", tags=["samples"])


@samples.post("", status_code=201)
async def create_item(body: ItemIn, caller: CallerDep, session: SessionDep, response: Response) -> ItemOut:
    item = await handlers.create_item(session, owner_id=caller.user_id, name=body.name)
    response.headers["Location"] = f"/samples/{item.id}"
    return ItemOut.model_validate(item)


@samples.get("/{item_id}", responses=responses(404))
async def get_item(item_id: UUID, caller: CallerDep, session: SessionDep) -> ItemOut:
    """One of the caller's own items."""
    return ItemOut.model_validate(await queries.item(session, item_id, owner_id=caller.user_id))
