"""People and their tokens in the whole system: what must reach every service, and what must be stored nowhere."""

import asyncio
import secrets
import statistics
import time
from typing import Any

import aio_pika
import httpx
import pytest

from common.testing.plugin import eventually

from .conftest import Mailbox, Person, Report, SignUp, sign_in
from .remains import in_logs, in_tables

ROTATIONS = 3
SIGN_OUTS = 30


@pytest.mark.slow
async def test_key_rotations_under_load_invalidate_no_token(
    stack: Any, sign_up: SignUp, product: None, report: Report
) -> None:
    """Repeated `keys rotate` while people refresh their tokens and call every service with old and new ones."""
    people = [await sign_up() for _ in range(4)]
    answers: dict[int, int] = {}
    kids: set[str] = set()
    over = asyncio.Event()

    async def use_tokens(person: Person) -> None:
        while not over.is_set():
            form = {"grant_type": "refresh_token", "refresh_token": person.tokens["refresh_token"]}
            answer = await person.client.post("/token", data=form)
            assert answer.status_code == 200, answer.text
            before, person.tokens = person.bearer, answer.json()
            for bearer in (before, person.bearer):
                for path in ("/me", "/orders", "/notifications", "/sessions"):
                    status = (await person.client.get(path, headers=bearer)).status_code
                    answers[status] = answers.get(status, 0) + 1

    def signed_with() -> set[str]:
        kids.update(person.tokens["access_token"].partition(".")[0] for person in people)
        return kids

    async def another_signs() -> bool:
        return len(signed_with()) > before

    async with asyncio.TaskGroup() as group:
        for person in people:
            group.create_task(use_tokens(person))
        for _ in range(ROTATIONS):
            before = len(signed_with())
            await asyncio.to_thread(stack.dev, "ops", "auth", "keys", "rotate")
            await eventually(another_signs, within=90)
        over.set()
    report(f"{sum(answers.values())} requests over {ROTATIONS} rotations: {answers}")
    assert answers.keys() == {200}


async def test_signing_out_everywhere_is_refused_at_orders_within_a_second(
    customer: Person, gateway: httpx.AsyncClient, report: Report
) -> None:
    lags = []
    for _ in range(SIGN_OUTS):
        tokens = await sign_in(gateway, customer.email, customer.password)
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert (await gateway.get("/orders", headers=bearer)).status_code == 200
        assert (await gateway.delete("/sessions", headers=bearer)).status_code == 204
        since = time.perf_counter()
        while (await gateway.get("/orders", headers=bearer)).status_code != 401:
            assert time.perf_counter() - since < 5
        lags.append(time.perf_counter() - since)
    median, worst = statistics.median(lags), max(lags)
    report(
        f"DELETE /sessions to 401 at orders, {SIGN_OUTS} times: p50 {median * 1000:.0f} ms, max {worst * 1000:.0f} ms"
    )
    assert worst < 1


async def test_no_log_of_a_service_or_server_holds_the_address_of_a_conflict(
    stack: Any, gateway: httpx.AsyncClient, customer: Person
) -> None:
    """PostgreSQL reports a violated constraint with the values that violate it, unless it is configured not to."""
    address = f"{secrets.token_hex(8)}@example.com"
    body = {"name": "Ada", "email": address, "password": "a lighthouse in fog 7"}
    answers = await asyncio.gather(*(gateway.post("/users", json=body) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11
    body = {"email": address, "current_password": customer.password}
    change = await gateway.patch("/me", json=body, headers=customer.bearer)
    assert change.status_code == 409

    async def reported() -> bool:
        return bool(in_logs(stack.folder / "logs", ["uq_users_email"]))

    await eventually(reported)  # proof that some were refused by the constraint
    assert in_logs(stack.folder / "logs", [address]) == []


@pytest.mark.slow
async def test_no_password_token_secret_or_link_is_in_any_log_event_or_table(
    stack: Any, sign_up: SignUp, admin: Person, mailbox: Mailbox, product: None
) -> None:
    async with await aio_pika.connect(stack.status["broker"]["amqp_url"]) as broker:
        channel = await broker.channel()
        queue = await channel.declare_queue(exclusive=True)
        for producer in ("auth", "users", "orders"):
            await queue.bind(f"{producer}.events", "#")
        ada = await sign_up(send_welcome=True)
        secret_texts = await everything_secret(ada, admin, mailbox)
        await ada.order()
        assert (await ada.get("/orders")).status_code == 401  # the last step reset the password
        published = []
        while message := await queue.get(fail=False):
            await message.ack()
            published.append(f"{message.body.decode()} {message.headers} {message.properties}")
    assert len(published) >= 6
    events = "\n".join(published)
    assert not [text for text in secret_texts if text in events]
    # Proof that the search finds something:
    assert ada.id in events
    assert await in_tables(stack.status, [ada.id])
    assert in_logs(stack.folder / "logs", [ada.id])

    assert await in_tables(stack.status, secret_texts) == []
    assert in_logs(stack.folder / "logs", [*secret_texts, ada.email]) == []


async def everything_secret(ada: Person, admin: Person, mailbox: Mailbox) -> list[str]:
    """Uses every operation that has a secret, and returns all secrets."""
    client = ada.client
    wrong, changed, reset = (secrets.token_urlsafe(18) for _ in range(3))
    secret_texts = [ada.password, wrong, changed, reset, *tokens_of(ada.tokens)]

    answer = await client.post("/token", data={"grant_type": "password", "username": ada.email, "password": wrong})
    assert answer.status_code == 400
    form = {"grant_type": "refresh_token", "refresh_token": ada.tokens["refresh_token"]}
    ada.tokens = (await client.post("/token", data=form)).json()
    secret_texts += tokens_of(ada.tokens)
    body: dict[str, Any] = {"current": ada.password, "new": changed}
    assert (await client.put("/me/password", json=body, headers=ada.bearer)).status_code == 204

    body = {"name": "App", "grant_types": ["client_credentials"], "scopes": ["orders:read"]}
    app = (await client.post("/clients", json=body, headers=admin.bearer)).json()
    credentials = httpx.BasicAuth(app["client_id"], app["client_secret"])
    own = (await client.post("/token", data={"grant_type": "client_credentials"}, auth=credentials)).json()
    shown = {"token": own["access_token"]}
    assert (await client.post("/introspect", data=shown, auth=credentials)).json()["active"]
    secret_texts += [app["client_secret"], own["access_token"], credentials._auth_header.partition(" ")[2]]

    assert (await client.post("/email-verifications", headers=ada.bearer)).status_code == 202
    secret_texts.append(await link_in(mailbox, ada.email, "verify"))
    body = {"token": secret_texts[-1]}
    assert (await client.post("/email-verifications/confirm", json=body)).status_code == 204
    assert (await client.get("/me", params={"token": secret_texts[-1]}, headers=ada.bearer)).status_code == 200

    assert (await client.post("/password-resets", json={"email": ada.email})).status_code == 202
    secret_texts.append(await link_in(mailbox, ada.email, "reset"))
    body = {"token": secret_texts[-1], "password": reset}
    assert (await client.post("/password-resets/confirm", json=body)).status_code == 204

    async def signed_out() -> bool:
        return (await ada.get("/orders")).status_code == 401

    await eventually(signed_out)
    return secret_texts


def tokens_of(tokens: dict[str, Any]) -> list[str]:
    """Includes the signatures, to detect a log that truncates tokens."""
    return [tokens["access_token"], tokens["access_token"].rpartition(".")[2], tokens["refresh_token"]]


async def link_in(mailbox: Mailbox, address: str, word: str) -> str:
    async def arrived() -> str | None:
        texts = [text for text in mailbox.bodies(address) if word in text and "?token=" in text]
        return texts[0].partition("?token=")[2].split()[0] if texts else None

    found = await eventually(arrived, within=30)
    assert found is not None
    return found


@pytest.mark.slow
async def test_an_erased_person_is_stored_nowhere_and_the_orders_stay(
    stack: Any, gateway: httpx.AsyncClient, product: None, mailbox: Mailbox
) -> None:
    mark = secrets.token_hex(6)
    address, name, device = f"{mark}@example.com", f"Ada {mark.upper()}", f"Phone/{mark[::-1]}"
    gateway.headers["User-Agent"] = device
    body = {"name": name, "email": address, "password": "a lighthouse in fog 7"}
    created = (await gateway.post("/users", json=body)).json()
    ada = Person(gateway, created["id"], address, body["password"], await sign_in(gateway, address, body["password"]))
    order = (await ada.order(note=f"ring at {mark}")).json()
    await mailbox.wait_for(address, order["id"])
    body = {"reason": f"{mark} moved"}
    assert (await gateway.post(f"/orders/{order['id']}/cancel", json=body, headers=ada.bearer)).status_code == 200
    moved = f"moved-{address}"
    body = {"email": moved, "current_password": ada.password}
    assert (await gateway.patch("/me", json=body, headers=ada.bearer)).json()["pending_email"] == moved
    personal = [mark, mark.upper(), device, moved]
    everywhere = await in_tables(stack.status, personal)
    databases = {line.partition(" in ")[2].partition(".")[0] for line in everywhere}
    assert databases == {"auth", "users", "orders", "notifier"}

    assert (await gateway.delete("/me", headers=ada.bearer)).status_code == 204

    async def gone() -> bool:
        return await in_tables(stack.status, personal) == []

    await eventually(gone, within=20)
    assert in_logs(stack.folder / "logs", personal) == []
    (kept,) = [line for line in await in_tables(stack.status, [order["id"]]) if line.endswith("orders.orders")]
    assert kept
