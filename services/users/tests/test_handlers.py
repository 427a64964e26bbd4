"""Use cases stay within the caller's transaction."""

import asyncio

import pytest
from sqlalchemy import select

from common.db.database import Database
from common.errors import NotFound
from users import queries
from users.errors import EmailTaken, LastAdmin
from users.handlers import accounts, administration, email_changes, links, logins
from users.models import SecretLink, User

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"


async def sign_up(database: Database, email: str = "ann@example.com") -> User:
    async with database.transaction() as session:
        return await accounts.sign_up(session, name="Ann", email=email, age=None, password_hash=HASH, send_welcome=True)


class Undone(Exception):
    """Rolls a transaction back."""


async def test_a_change_that_the_caller_rolls_back_is_undone(database: Database) -> None:
    ann = await sign_up(database)
    with pytest.raises(Undone):
        async with database.transaction() as session:
            await administration.change_role(session, ann.id, "admin", actor="operator:ann")
            await accounts.change_profile(session, ann.id, {"name": "Anna"})
            raise Undone
    async with database.transaction() as session:
        found = await queries.user(session, ann.id)
        assert (found.role, found.name, found.version) == ("user", "Ann", 1)


async def test_several_changes_in_one_transaction_are_several_versions(database: Database) -> None:
    ann = await sign_up(database)
    async with database.transaction() as session:
        await administration.change_role(session, ann.id, "staff", actor="operator:ann")
        await accounts.change_profile(session, ann.id, {"name": "Anna"})
        changed = await administration.deactivate(session, ann.id, actor="operator:ann")
    assert changed.version == 4


async def test_an_address_that_was_free_a_moment_ago_is_refused_by_the_index(database: Database) -> None:
    await sign_up(database)
    with pytest.raises(EmailTaken):
        await sign_up(database)


async def test_two_who_take_each_others_address_at_once_end_without_a_deadlock(database: Database) -> None:
    ann, bob = await sign_up(database), await sign_up(database, "bob@example.com")

    async def take(user: User, email: str) -> str:
        async with database.transaction() as session:
            await email_changes.request_email_change(session, user.id, email, old_hash=HASH)
            link = select(SecretLink.id).where(SecretLink.user_id == user.id, SecretLink.purpose == "confirm_email")
            issued = await links.issue_link(session, (await session.scalars(link)).one())
        try:
            async with database.transaction() as session:
                await email_changes.confirm_email_change(session, issued.token)
        except EmailTaken:
            return "taken"
        return "moved"

    outcomes = set(await asyncio.gather(take(ann, bob.email), take(bob, ann.email)))
    assert outcomes == {"taken"}


async def test_promoting_returns_the_role_before(database: Database) -> None:
    await sign_up(database)
    async with database.transaction() as session:
        user, before = await administration.promote(session, "ann@example.com", "admin", actor="operator:ann")
    assert (user.role, before, user.version) == ("admin", "user", 2)
    with pytest.raises(LastAdmin):
        async with database.transaction() as session:
            await administration.promote(session, "ann@example.com", "staff", actor="operator:ann")
    with pytest.raises(NotFound):
        async with database.transaction() as session:
            await administration.promote(session, "nobody@example.com", "admin", actor="operator:ann")


async def test_a_sign_in_that_ends_after_the_account_was_erased_does_no_harm(database: Database) -> None:
    ann = await sign_up(database)
    async with database.transaction() as session:
        login = await logins.begin_login(session, email=ann.email, network="203.0.113.1/32")
    async with database.transaction() as session:
        await accounts.erase(session, ann.id)
    async with database.transaction() as session:
        account = await logins.finish_login(session, login, is_right=True, new_hash=HASH)
    assert account is not None  # auth refuses it: the version is lower than that of the erasure
    assert account.version == 1
