"""Everything that ends a person's access ends it at every replica of every service, by event."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from common.testing.plugin import eventually

from .conftest import Person, SignUp, sign_in

pytestmark = pytest.mark.slow

REPLICATED = ("auth", "users", "orders", "notifier")
PATHS = ("/sessions", "/me", "/orders", "/notifications")
TRIES = 8
"""Requests per path, which the gateway distributes over both replicas."""


async def log_out(ada: Person, _: Person) -> httpx.Response:
    sessions = (await ada.get("/sessions")).json()["items"]
    (this,) = [session["id"] for session in sessions if session["current"]]
    return await ada.client.delete(f"/sessions/{this}", headers=ada.bearer)


async def log_out_everywhere(ada: Person, _: Person) -> httpx.Response:
    return await ada.client.delete("/sessions", headers=ada.bearer)


async def revoke_the_refresh_token(ada: Person, _: Person) -> httpx.Response:
    return await ada.client.post("/revoke", data={"token": ada.tokens["refresh_token"]})


async def change_the_password_in_another_session(ada: Person, _: Person) -> httpx.Response:
    there = await sign_in(ada.client, ada.email, ada.password)
    body = {"current": ada.password, "new": secrets.token_urlsafe(18)}
    return await ada.client.put("/me/password", json=body, headers={"Authorization": f"Bearer {there['access_token']}"})


async def change_the_role(ada: Person, admin: Person) -> httpx.Response:
    return await ada.client.patch(f"/users/{ada.id}", json={"role": "staff"}, headers=admin.bearer)


async def deactivate(ada: Person, admin: Person) -> httpx.Response:
    return await ada.client.post(f"/users/{ada.id}/deactivate", headers=admin.bearer)


async def erase(ada: Person, _: Person) -> httpx.Response:
    return await ada.client.delete("/me", headers=ada.bearer)


WAYS: tuple[Callable[[Person, Person], Awaitable[httpx.Response]], ...] = (
    log_out,
    log_out_everywhere,
    revoke_the_refresh_token,
    change_the_password_in_another_session,
    change_the_role,
    deactivate,
    erase,
)


@pytest.fixture
async def replicas(stack: Any) -> AsyncIterator[None]:
    for service in REPLICATED:
        await asyncio.to_thread(stack.dev, "scale", f"{service}:api=2")
    yield
    for service in REPLICATED:
        await asyncio.to_thread(stack.dev, "scale", f"{service}:api=1")


async def statuses(ada: Person) -> set[int]:
    return {(await ada.get(path)).status_code for path in PATHS for _ in range(TRIES)}


async def test_whatever_ends_access_ends_it_at_every_replica_of_every_service(
    replicas: None, sign_up: SignUp, admin: Person, subtests: pytest.Subtests
) -> None:
    for end in WAYS:
        with subtests.test(end.__name__):
            ada = await sign_up()

            async def is_denied(ada: Person = ada) -> bool:
                return await statuses(ada) == {401}

            assert await statuses(ada) == {200}
            assert (await end(ada, admin)).is_success
            await eventually(is_denied, within=10)
            assert await is_denied()
            # The session ends with the tokens, except after a change of role, which only invalidates tokens.
            form = {"grant_type": "refresh_token", "refresh_token": ada.tokens["refresh_token"]}
            refreshed = await ada.client.post("/token", data=form)
            assert refreshed.status_code == (200 if end is change_the_role else 400)
