"""The table of sign-ins."""

import uuid
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from auth.models import Base

Outcome = Literal["succeeded", "wrong", "code_missing", "throttled"]

NOBODY: Final = uuid.UUID(int=0)
"""The `user_id` of refused sign-ins for an address without an account. They are kept as well, so that the response
takes as long as for one with an account.
"""


class SignIn(Base):
    """A sign-in, successful or refused, without the address that was typed. `network` is a digest."""

    __tablename__ = "sign_ins"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID]
    created_at: Mapped[datetime] = mapped_column(index=True)
    network: Mapped[str]
    device: Mapped[str]
    client_id: Mapped[str]
    outcome: Mapped[str]
    session_id: Mapped[uuid.UUID | None]
    """The session that it began: of a sign-in on a page the first, once there is one."""

    __table_args__ = (
        CheckConstraint("outcome IN ('succeeded', 'wrong', 'code_missing', 'throttled')", name="outcome"),
        CheckConstraint("session_id IS NULL OR outcome = 'succeeded'", name="session_id"),
        Index(None, "user_id", "id"),
    )
