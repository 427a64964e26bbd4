"""The rules of an account's state, on the model and in the table."""

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import undefer

from common.db.database import Database
from users.models import User

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"


def user() -> User:
    return User.register(name="Ann", email="ann@example.com", age=34, password_hash=HASH)


def test_a_new_account_is_active_with_the_role_user_and_an_unverified_address() -> None:
    ann = user()
    assert (ann.role, ann.status, ann.email_verified, ann.version) == ("user", "active", False, 1)
    assert ann.created_at == ann.updated_at


def test_a_change_of_the_profile_names_what_is_different_and_is_one_version() -> None:
    ann = user()
    assert ann.change_profile({"name": "Anna", "age": 35}) == ["name", "age"]
    assert ann.version == 2


def test_no_change_is_no_version() -> None:
    ann = user()
    assert ann.change_profile({"name": "Ann"}) == []
    assert not ann.change_role("user")
    assert not ann.change_status("active")
    assert ann.version == 1


def test_a_new_address_has_to_be_verified_again() -> None:
    ann = user()
    assert ann.verify_email()
    assert not ann.verify_email()
    ann.change_profile({"name": "Anna"})
    assert ann.email_verified
    assert not ann.change_email(ann.email)
    assert ann.email_verified
    assert ann.change_email("anna@example.com")
    assert not ann.email_verified


def test_an_active_admin_has_the_role_and_is_active() -> None:
    ann = user()
    assert not ann.is_active_admin
    ann.change_role("admin")
    assert ann.is_active_admin
    ann.change_status("deactivated")
    assert not ann.is_active_admin


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("email", "Ann@example.com"),
        ("email", "x" * 250 + "@a.bc"),
        ("age", 0),
        ("age", 150),
        ("role", "king"),
        ("status", "asleep"),
        ("password_hash", "a lighthouse in fog 7"),
        ("version", 0),
    ],
)
async def test_the_table_refuses_an_invalid_state(database: Database, field: str, value: object) -> None:
    ann = user()
    setattr(ann, field, value)
    with pytest.raises(IntegrityError, match=f"ck_users_{field}"):
        async with database.transaction() as session:
            session.add(ann)


async def test_the_table_refuses_a_second_account_with_the_address(database: Database) -> None:
    with pytest.raises(IntegrityError, match="uq_users_email"):
        async with database.transaction() as session:
            session.add_all([user(), user()])


async def test_the_hash_is_loaded_only_on_request(database: Database) -> None:
    ann = user()
    async with database.transaction() as session:
        session.add(ann)
    async with database.transaction() as session:
        found = await session.get_one(User, ann.id)
        assert "password_hash" not in found.__dict__
    async with database.transaction() as session:
        found = await session.get_one(User, ann.id, options=[undefer(User.password_hash)])
        assert found.password_hash == HASH
