"""Tables of what clients have used and lost."""

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from auth.models import Base


class UsedAssertion(Base):
    """A client's assertion that was used, kept until it expires: each is good once (RFC 7523 §3)."""

    __tablename__ = "used_assertions"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (CheckConstraint("length(digest) = 32", name="digest"),)


class RevokedToken(Base):
    """A revoked access token of a client. It belongs to no session: its `sid` names this token alone."""

    __tablename__ = "revoked_tokens"

    sid: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    client_id: Mapped[str]
    revoked_at: Mapped[datetime] = mapped_column(index=True)
