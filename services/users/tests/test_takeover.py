"""A stolen access token, good for five minutes, must not become the account. Each way was open once."""

import time
from typing import Any

import pyotp
import pytest

STALE = "insufficient_user_authentication"


@pytest.fixture
async def owner(world: Any) -> Any:
    return await world.sign_up()


def stolen(world: Any, owner: Any, *, age: int = 301, **mint: Any) -> dict[str, str]:
    """A token of a session that began `age` seconds ago. A thief may refresh it, but not sign in."""
    headers: dict[str, str] = world.bearer(owner, auth_time=int(time.time()) - age, **mint)
    return headers


async def owns_it_still(world: Any, owner: Any) -> bool:
    answer = await world.log_in(owner["email"])
    return bool(answer.status_code == 200 and answer.json()["user_id"] == owner["id"])


@pytest.mark.parametrize("age", [0, 301])
async def test_by_a_new_address_and_a_reset_of_the_password(world: Any, owner: Any, age: int) -> None:
    """Also with a token that is seconds old: the thief has no password, and nothing is mailed to their address."""
    headers = stolen(world, owner, age=age)
    for body in ({"email": "thief@example.com"}, {"email": "thief@example.com", "current_password": "a guess"}):
        answer = await world.public.patch("/me", json=body, headers=headers)
        assert answer.status_code in ({401} if age else {422, 403})
    await world.public.post("/password-resets", json={"email": "thief@example.com"})
    assert await world.links(owner) == []
    assert await owns_it_still(world, owner)


async def test_by_a_new_address_with_the_password_the_owner_takes_it_back(world: Any, owner: Any) -> None:
    await world.change_email(owner, "thief@example.com")
    await world.public.post("/password-resets", json={"email": "thief@example.com"})
    reset = await world.mailed(owner, "reset_password")
    assert await world.use("/password-resets/confirm", reset, password="the thief's own 7") == (204, None)
    body = {"name": "Eve", "email": owner["email"], "password": world.password}
    assert (await world.public.post("/users", json=body)).status_code == 409
    back = await world.mailed(owner, "revert_email")
    assert await world.use("/email-changes/revert", back) == (204, None)
    await world.public.post("/password-resets", json={"email": owner["email"]})
    reset = await world.mailed(owner, "reset_password")
    assert await world.use("/password-resets/confirm", reset, password=world.password) == (204, None)
    assert await owns_it_still(world, owner)


async def test_by_a_second_factor_that_the_owner_does_not_have(world: Any, owner: Any) -> None:
    headers = stolen(world, owner)
    totp = "/me/authenticators/totp"
    for answer in (
        await world.public.post(totp, headers=headers),
        await world.public.post(f"{totp}/confirm", json={"code": "123456"}, headers=headers),
        await world.public.delete(totp, headers=headers),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, STALE)
    assert await owns_it_still(world, owner)


async def test_a_second_factor_that_a_thief_added_goes_with_their_address(world: Any, owner: Any) -> None:
    await world.change_email(owner, "thief@example.com")
    secret = (await world.public.post("/me/authenticators/totp", headers=world.bearer(owner))).json()["secret"]
    code = pyotp.TOTP(secret).now()
    await world.public.post("/me/authenticators/totp/confirm", json={"code": code}, headers=world.bearer(owner))
    assert (await world.log_in("thief@example.com")).json()["code"] == "mfa_required"
    assert await world.use("/email-changes/revert", await world.mailed(owner, "revert_email")) == (204, None)
    assert await owns_it_still(world, owner)


async def test_a_second_factor_of_the_owners_outlives_a_revert_and_a_reset(world: Any, owner: Any) -> None:
    """Who holds the mailbox alone does not get in."""
    secret = (await world.public.post("/me/authenticators/totp", headers=world.bearer(owner))).json()["secret"]
    code = pyotp.TOTP(secret).now()
    await world.public.post("/me/authenticators/totp/confirm", json={"code": code}, headers=world.bearer(owner))
    await world.request_email(owner, "new@example.com")
    assert await world.use("/email-changes/revert", await world.mailed(owner, "revert_email")) == (204, None)
    await world.public.post("/password-resets", json={"email": owner["email"]})
    reset = await world.mailed(owner, "reset_password")
    assert await world.use("/password-resets/confirm", reset, password="the thief's own 7") == (204, None)
    assert (await world.log_in(owner["email"], "the thief's own 7")).json()["code"] == "mfa_required"


async def test_guesses_with_a_stolen_token_do_not_keep_the_owner_from_a_new_password(world: Any, owner: Any) -> None:
    new = "the owner's own 9"
    for _ in range(12):
        body = {"current": "a guess", "new": new}
        await world.public.put("/me/password", json=body, headers=stolen(world, owner))
    await world.public.post("/password-resets", json={"email": owner["email"]})
    reset = await world.mailed(owner, "reset_password")
    assert await world.use("/password-resets/confirm", reset, password=world.password) == (204, None)
    body = {"current": world.password, "new": new}
    answer = await world.public.put("/me/password", json=body, headers=world.bearer(owner))
    assert answer.status_code == 204, answer.text


async def test_by_erasing_it_and_signing_up_with_its_address(world: Any, owner: Any) -> None:
    answer = await world.public.delete("/me", headers=stolen(world, owner))
    assert (answer.status_code, answer.json()["code"]) == (401, STALE)
    assert answer.headers["WWW-Authenticate"] == f'Bearer error="{STALE}", max_age="300"'
    assert await owns_it_still(world, owner)


async def test_by_a_role_that_a_stolen_admin_gives(world: Any, owner: Any) -> None:
    admin = await world.admin()
    path = f"/users/{owner['id']}"
    for headers, status, code in (
        (stolen(world, admin, admin=True), 401, STALE),
        (stolen(world, owner), 403, "forbidden"),
        (stolen(world, admin, admin=True, scope="orders:read"), 403, "insufficient_scope"),
    ):
        answer = await world.public.patch(path, json={"role": "admin"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (
        await world.public.patch(path, json={"role": "staff"}, headers=world.bearer(admin, admin=True))
    ).status_code == 200
