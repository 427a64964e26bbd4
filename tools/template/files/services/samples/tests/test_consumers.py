import json
from pathlib import Path

from sqlalchemy import select

from common.db.database import Database, new_id, utc_now
from common.messaging.cloudevents import Envelope
from common.messaging.outbox import outbox
from samples import handlers, queries
from samples.consumers import handlers as consumer

EVENTS = Path(__file__).parents[3] / "contracts" / "events"
CREATED = "samples.item.created.v1"


async def test_an_item_is_processed_when_its_recorded_event_arrives(database: Database) -> None:
    owner = new_id()
    async with database.transaction() as session:
        item = await handlers.create_item(session, owner_id=owner, name="First")
    async with database.transaction() as session:
        (row,) = (await session.execute(select(outbox))).mappings()
        data = json.dumps(row["data"])
        event = consumer.decode(Envelope(row["event_id"], row["type"], row["subject"], row["version"], utc_now(), data))
        assert event is not None
        await consumer.handle(session, event)
    async with database.transaction() as session:
        assert (await queries.item(session, item.id, owner_id=owner)).processed_at is not None


def test_the_events_that_samples_reads_are_read_from_older_and_newer_producers() -> None:
    published = json.loads((EVENTS / f"{CREATED}.schema.json").read_text())
    (whole,) = published["examples"]
    for data in (whole, {name: whole[name] for name in published["required"]}, {**whole, "added_later": 1}):
        assert consumer.decode(Envelope(new_id(), CREATED, "subject", 1, utc_now(), json.dumps(data))) is not None
