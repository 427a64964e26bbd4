"""Retention of a consumer's own rows: removes what no replay can deliver again, by partitions or in chunks."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import Column

from common.db.database import Database
from common.db.expired_rows import delete_expired
from common.messaging import inbox
from common.runtime.background import background, every

EVERY: Final = 3600.0
MARGIN: Final = timedelta(days=7)
"""On top of the history that producers keep: a replay may wait in the queue, an event in the outbox."""


def deleting_expired(
    database: Database, columns: Sequence[Column[Any]], history: timedelta
) -> AbstractAsyncContextManager[None]:
    """Now and every hour: maintains the inbox's partitions, and deletes rows whose time in one of `columns` is older
    than `history` and a margin. At most a day's rows at a time.
    """

    async def delete_all() -> None:
        for column in columns:
            await delete_expired(database, column, history + MARGIN)

    maintain_inbox = partial(inbox.maintain, database.endpoint, history + MARGIN)
    return background(partial(every, EVERY, maintain_inbox), partial(every, EVERY, delete_all))
