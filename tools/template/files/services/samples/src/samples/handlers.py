"""What can be done with items. Handlers use the caller's transaction and never commit."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import new_id, utc_now
from common.messaging import outbox
from samples import queries
from samples.events import ItemCreated
from samples.models import Item


async def create_item(session: AsyncSession, *, owner_id: UUID, name: str) -> Item:
    now = utc_now()
    item = Item(id=new_id(), owner_id=owner_id, name=name, version=1, created_at=now)
    session.add(item)
    event = ItemCreated(item_id=item.id, owner_id=owner_id, created_at=now)
    await outbox.record(session, event, subject=item.id, version=item.version, occurred_at=now)
    return item


async def item_was_created(session: AsyncSession, item_id: UUID) -> None:
    """Replace this by what the service does when an event arrives."""
    await queries.mark_processed(session, item_id, utc_now())
