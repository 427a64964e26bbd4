"""Bodies of requests and responses."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from common.web import Model, StrictModel
from common.web.single_line import SINGLE_LINE


class ItemIn(StrictModel):
    name: Annotated[str, Field(min_length=1, max_length=200), SINGLE_LINE]


class ItemOut(Model):
    id: UUID
    name: str
    created_at: datetime
    processed_at: datetime | None
