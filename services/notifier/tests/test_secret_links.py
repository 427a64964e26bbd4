"""Mails with a one-time link, whose secret users issues when the mail is composed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from common.db.database import Database, new_id
from common.security.service_client import ServiceClient
from common.testing.plugin import eventually
from notifier.delivery.worker import Deliverer
from notifier.mail.composer import Composer
from notifier.mail.limits import UnverifiedLimit
from notifier.mail.queue import MailQueue
from notifier.mail.smtp import MailChannel
from notifier.mail.unsubscribe_links import UnsubscribeLinks
from notifier.settings import Settings

from .delivering import all_sent
from .mailbox import Mailbox, part_of
from .world import KEY, World, holds

SECRET = "a-b_c=d/e+f"


class Users:
    """A fake of users' internal API."""

    def __init__(self) -> None:
        self.status = 200
        self.requested: list[str] = []

    async def issue(self, request: Request) -> Response:
        self.requested.append(request.path_params["link_id"])
        assert request.headers["Authorization"] == "Bearer a-token"
        if self.status != 200:
            return JSONResponse({"code": "unavailable"}, status_code=self.status)
        return JSONResponse({"token": SECRET, "email": "newest@example.com", "name": "Ann", "purpose": "verify_email"})


class Token:
    async def token(self) -> str:
        return "a-token"

    def forget(self, token: str) -> None:
        raise AssertionError(token)


@pytest.fixture
def users() -> Users:
    return Users()


@pytest.fixture
async def composer(users: Users, settings: Settings) -> AsyncIterator[Composer]:
    app = Starlette(routes=[Route("/internal/secret-links/{link_id}", users.issue, methods=["POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        client = ServiceClient(http, "http://users", Token())
        yield Composer(
            sender=settings.sender,
            pages=settings.model_copy(update={"public_url": "https://waybill.test"}).link_pages,
            users=client,
            unsubscribe_links=UnsubscribeLinks("https://waybill.test", KEY),
        )


@asynccontextmanager
async def delivering(database: Database, composer: Composer, settings: Settings) -> AsyncIterator[None]:
    stop, channel = asyncio.Event(), MailChannel(settings)
    queue = MailQueue(composer, channel, UnverifiedLimit(KEY, most=10), slots=2)
    task = asyncio.create_task(Deliverer(database, queue, lease=timedelta(seconds=1)).run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 25)
        await channel.close()


async def requested(world: World, user_id: UUID, purpose: str) -> UUID:
    link_id = new_id()
    await world.event("users.secret_link.requested.v1", link_id=str(link_id), user_id=str(user_id), purpose=purpose)
    return link_id


@pytest.mark.parametrize(
    ("purpose", "path", "word"),
    [
        ("verify_email", "/email-verifications/page", "verify"),
        ("reset_password", "/password-resets/page", "password"),
        ("confirm_email", "/email-changes/page", "confirm"),
        ("revert_email", "/email-changes/revert-page", "keep"),
    ],
)
async def test_the_link_is_sent_to_the_address_that_users_issued_it_for(
    world: World,
    database: Database,
    composer: Composer,
    settings: Settings,
    users: Users,
    mailbox: Mailbox,
    purpose: str,
    path: str,
    word: str,
) -> None:
    user_id = new_id()
    await world.registered(user_id, email="older@example.com")
    link_id = await requested(world, user_id, purpose)
    async with delivering(database, composer, settings):
        await eventually(lambda: all_sent(world))
    assert users.requested == [str(link_id)]
    [text] = mailbox.to("newest@example.com")
    assert f"https://waybill.test{path}?token=a-b_c%3Dd%2Fe%2Bf\r\n" in text
    html = part_of(mailbox.mails[0], "html")
    assert text.count("?token=") == html.count("?token=") == 1
    assert word in text


async def test_the_secret_is_stored_nowhere(
    world: World, database: Database, composer: Composer, settings: Settings
) -> None:
    user_id = new_id()
    await world.registered(user_id)
    await requested(world, user_id, "reset_password")
    async with delivering(database, composer, settings):
        await eventually(lambda: all_sent(world))
    rows: list[Any] = [await world.rows(f"SELECT * FROM {table}") for table in ("notifications", "deliveries")]  # noqa: S608
    assert "a-b_c" not in repr(rows)


async def test_an_expired_link_is_not_mailed(
    world: World, database: Database, composer: Composer, settings: Settings, users: Users, mailbox: Mailbox
) -> None:
    user_id = new_id()
    await world.registered(user_id)
    await requested(world, user_id, "reset_password")
    users.status = 404
    async with delivering(database, composer, settings):
        await eventually(lambda: _is(world, ["cancelled"]))
    assert mailbox.envelopes == []


async def test_while_users_is_unavailable_links_wait_and_other_mails_are_sent(
    world: World, database: Database, composer: Composer, settings: Settings, users: Users, mailbox: Mailbox
) -> None:
    user_id = new_id()
    await world.registered(user_id, email="ann@example.com")
    users.status = 503
    await requested(world, user_id, "reset_password")
    async with delivering(database, composer, settings):
        await eventually(lambda: holds(len(users.requested) == 1))
        await world.order("placed", user_id)
        await eventually(lambda: _is(world, ["pending", "sent"]))
        users.status = 200
        await eventually(lambda: all_sent(world))
    assert len(mailbox.to("ann@example.com")) == 1
    assert {delivery["attempts"] for delivery in await world.deliveries()} == {1}


async def _is(world: World, states: list[str]) -> bool:
    return await world.states() == states


def test_a_shop_may_configure_its_own_pages(settings: Settings) -> None:
    own = settings.model_copy(update={"reset_password_page": "https://shop.example/new-password"})
    assert own.link_pages["reset_password"] == "https://shop.example/new-password"
    assert own.link_pages["verify_email"] == f"{settings.public_url}/email-verifications/page"
