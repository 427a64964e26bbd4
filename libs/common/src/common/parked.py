"""Parked messages: what a consumer could not take, kept whole in PostgreSQL with its cause, until an operator decides.

The table is the truth; the `.parked` queue only feeds it with what the broker itself dead-lettered.
"""

import base64
from datetime import datetime
from typing import Any, Final

from aiormq.abc import DeliveredMessage
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from common.database import new_id
from common.inbox import parked_messages

DELIVERY_LIMIT: Final = "delivery limit: the consumer died or lost its connection too often while it held this message"


async def park(session: AsyncSession, consumer: str, message: DeliveredMessage, cause: str, *, attempts: int) -> None:
    """Keeps the message in the caller's transaction; the caller acknowledges it after the commit.

    The same message, delivered again because that acknowledgement was lost, is kept once.
    """
    properties = message.header.properties
    await session.execute(
        insert(parked_messages)
        .values(
            id=new_id(),
            consumer=consumer,
            event_id=_text(properties.message_id),
            type=_text(properties.message_type),
            cause=_text(cause),
            attempts=attempts,
            body=message.body,
            properties=_plain({name: getattr(properties, name) for name in properties.attributes()}),
        )
        .on_conflict_do_nothing()
    )


def _text(value: str | None) -> str | None:
    """PostgreSQL's text can't hold NUL."""
    return None if value is None else value.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _plain(value: Any) -> Any:
    """An AMQP field as JSON; bytes and times are marked, so that a replay restores them."""
    match value:
        case dict():
            plain: Any = {_text(str(key)): _plain(item) for key, item in value.items() if item is not None}
        case list() | tuple():
            plain = [_plain(item) for item in value]
        case bytes() | bytearray():
            plain = {"$bytes": base64.b64encode(value).decode()}
        case datetime():
            plain = {"$time": value.isoformat()}
        case bool() | int() | float() | None:
            plain = value
        case _:
            plain = _text(str(value))
    return plain
