"""Tables of the authorization code flow: who is signed in in a browser, codes, and what people allow clients."""

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, text
from sqlalchemy.orm import Mapped, mapped_column

from auth.models import Base


class BrowserSession(Base):
    """A person signed in on auth's own pages, so that several clients can be authorized after one sign-in."""

    __tablename__ = "browser_sessions"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    cookie_hash: Mapped[bytes] = mapped_column(unique=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("subjects.user_id"), index=True)
    subject_version: Mapped[int]
    """Users' version of the person when the credentials were verified."""
    amr: Mapped[list[str]]
    authenticated_at: Mapped[datetime]
    device: Mapped[str] = mapped_column(default="", server_default=text("''"))
    is_new_device: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether the first session that begins here is to be announced as one on a new device."""
    ends_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (CheckConstraint("length(cookie_hash) = 32", name="cookie_hash"),)


class AuthorizationCode(Base):
    """A code (RFC 6749 §4.1.2), used once `session_id` names the session that it began."""

    __tablename__ = "authorization_codes"

    code_hash: Mapped[bytes] = mapped_column(primary_key=True)
    client_id: Mapped[str]
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("subjects.user_id"))
    browser_session_id: Mapped[uuid.UUID]
    redirect_uri: Mapped[str]
    scopes: Mapped[list[str]]
    resources: Mapped[list[str]]
    code_challenge: Mapped[str]
    nonce: Mapped[str | None]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    session_id: Mapped[uuid.UUID | None]

    __table_args__ = (CheckConstraint("length(code_hash) = 32", name="code_hash"),)


class Consent(Base):
    """What a person allows a managed client. Scopes add up until the consent is withdrawn."""

    __tablename__ = "consents"

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("subjects.user_id"), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True, index=True)
    scopes: Mapped[list[str]]
    granted_at: Mapped[datetime]
