"""The tables of samples."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from common.db.database import COLUMN_TYPES, NAMING


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = COLUMN_TYPES


class Item(Base):
    """An aggregate: `version` counts its events."""

    __tablename__ = "items"
    __table_args__ = (
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name"),
        CheckConstraint("version >= 1", name="version"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[UUID]
    name: Mapped[str]
    version: Mapped[int]
    created_at: Mapped[datetime]
    processed_at: Mapped[datetime | None]
    """When the consumer processed the item's event."""
