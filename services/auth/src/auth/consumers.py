"""Users' events that auth takes effect of, each as auth's own narrow copy."""

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
    def spared_session(self) -> uuid.UUID | None:
        """Users takes the id from the token and promises only a text; what is no id spares no session."""
        try:
            return uuid.UUID(self.except_session_id or "")
        except ValueError:
            return None


@handlers.on("users.user.deactivated.v1", _UserEvent)
async def user_deactivated(session: AsyncSession, event: Received[_UserEvent]) -> None:
    await subjects.deactivated(session, event.data.user_id, version=event.version, now=utc_now())


@handlers.on("users.user.reactivated.v1", _UserEvent)
async def user_reactivated(session: AsyncSession, event: Received[_UserEvent]) -> None:
    await subjects.reactivated(session, event.data.user_id, version=event.version)


@handlers.on("users.user.erased.v1", _UserEvent)
async def user_erased(session: AsyncSession, event: Received[_UserEvent]) -> None:
    await subjects.erased(session, event.data.user_id, version=event.version, now=utc_now())


@handlers.on("users.user.role_changed.v1", RoleChanged)
async def user_role_changed(session: AsyncSession, event: Received[RoleChanged]) -> None:
    await subjects.role_changed(session, event.data.user_id, role=event.data.role, version=event.version, now=utc_now())


@handlers.on("users.user.password_changed.v1", PasswordChanged)
async def user_password_changed(session: AsyncSession, event: Received[PasswordChanged]) -> None:
    await subjects.password_changed(
        session,
        event.data.user_id,
        version=event.version,
        now=utc_now(),
        except_session_id=event.data.spared_session,
    )
