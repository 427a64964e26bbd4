"""Users' events that auth consumes, each read through a model with only the fields that auth needs."""

import uuid
from typing import Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession

from auth.sessions import subjects
from common.db.database import utc_now
from common.messaging.event_handlers import EventHandlers, Received

handlers: Final = EventHandlers()


class _UserEvent(BaseModel):
    model_config = ConfigDict(extra="ignore")

    user_id: uuid.UUID


class RoleChanged(_UserEvent):
    role: str


class PasswordChanged(_UserEvent):
    except_session_id: str | None = None

    @property
    def except_session(self) -> uuid.UUID | None:
        """None if the id is not a UUID: users copies it from the access token and promises only a string."""
        try:
            return uuid.UUID(self.except_session_id or "")
        except ValueError:
            return None


@handlers.on("users.user.deactivated.v1", _UserEvent)
async def user_deactivated(session: AsyncSession, event: Received[_UserEvent]) -> None:
    await subjects.deactivate(session, event.data.user_id, version=event.version, now=utc_now())


@handlers.on("users.user.reactivated.v1", _UserEvent)
async def user_reactivated(session: AsyncSession, event: Received[_UserEvent]) -> None:
    await subjects.reactivate(session, event.data.user_id, version=event.version)


@handlers.on("users.user.erased.v1", _UserEvent)
async def user_erased(session: AsyncSession, event: Received[_UserEvent]) -> None:
    await subjects.erase(session, event.data.user_id, version=event.version, now=utc_now())


@handlers.on("users.user.role_changed.v1", RoleChanged)
async def user_role_changed(session: AsyncSession, event: Received[RoleChanged]) -> None:
    await subjects.change_role(session, event.data.user_id, role=event.data.role, version=event.version, now=utc_now())


@handlers.on("users.user.password_changed.v1", PasswordChanged)
async def user_password_changed(session: AsyncSession, event: Received[PasswordChanged]) -> None:
    await subjects.change_password(
        session,
        event.data.user_id,
        version=event.version,
        now=utc_now(),
        except_session=event.data.except_session,
    )


@handlers.on("users.user.email_reverted.v1", _UserEvent)
async def user_email_reverted(session: AsyncSession, event: Received[_UserEvent]) -> None:
    await subjects.revert_email(session, event.data.user_id, version=event.version, now=utc_now())
