"""Revocations from auth's exchange to a process that verifies tokens."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import aio_pika
import httpx
import pytest
from aio_pika import ExchangeType

from common.db.database import new_id, utc_now
from common.messaging.cloudevents import Envelope, encode
from common.security.revocation import Denylist, RevocationFeed, SessionRevoked, SubjectRevoked
from common.security.service_client import ServiceClient
from common.security.tokens import InvalidToken, Principal
from common.testing.plugin import eventually, management
from common.testing.token_issuer import TokenIssuer

ISSUER = TokenIssuer()
USER = UUID("018f3b1e-0000-7000-8000-000000000001")


async def principal(**claims: Any) -> Principal:
    return await ISSUER.verifier("orders").verify(ISSUER.mint(USER, **claims))


async def test_a_revoked_session_is_denied_and_no_other() -> None:
    denylist = Denylist()
    denylist.revoke_session(SessionRevoked(session_id="s-1"))
    assert denylist.denies(await principal(sid="s-1"))
    assert not denylist.denies(await principal(sid="s-2"))


async def test_a_subjects_earlier_versions_are_denied() -> None:
    denylist = Denylist()
    denylist.revoke_subject(SubjectRevoked(subject=str(USER), min_session_version=3))
    assert denylist.denies(await principal(sv=2))
    assert denylist.denies(await principal(sv=None))
    assert not denylist.denies(await principal(sv=3))


async def test_a_password_change_does_not_revoke_its_own_session() -> None:
    denylist = Denylist()
    denylist.revoke_subject(SubjectRevoked(subject=str(USER), min_session_version=3, except_session_id="s-1"))
    assert not denylist.denies(await principal(sv=2, sid="s-1"))
    assert denylist.denies(await principal(sv=2, sid="s-2"))
    assert denylist.denies(await principal(sv=2, sid=None))


async def test_tokens_of_the_excepted_session_that_were_revoked_before_stay_revoked() -> None:
    denylist = Denylist()
    revoked = {"subject": str(USER), "min_session_version": 3, "except_session_id": "s-1", "except_session_version": 2}
    denylist.revoke_subject(SubjectRevoked.model_validate(revoked))
    assert denylist.denies(await principal(sv=1, sid="s-1"))
    assert not denylist.denies(await principal(sv=2, sid="s-1"))


async def test_an_earlier_revocation_that_arrives_late_changes_nothing() -> None:
    denylist = Denylist()
    denylist.revoke_subject(SubjectRevoked(subject=str(USER), min_session_version=4))
    denylist.revoke_subject(SubjectRevoked(subject=str(USER), min_session_version=3, except_session_id="s-1"))
    assert denylist.denies(await principal(sv=3, sid="s-1"))


async def test_a_revocation_repeated_after_a_later_one_of_the_same_version_changes_nothing() -> None:
    revoked: dict[str, Any] = {"subject": str(USER), "min_session_version": 3}
    earlier = SubjectRevoked(**revoked, except_session_id="s-1", except_session_version=1)
    kept_less = SubjectRevoked(**revoked, except_session_id="s-1", except_session_version=2)
    for later, denied in ((SubjectRevoked(**revoked), [1, 2]), (kept_less, [1])):
        denylist = Denylist()
        for each in (earlier, later, earlier):
            denylist.revoke_subject(each)
        assert [sv for sv in (1, 2, 3) if denylist.denies(await principal(sv=sv, sid="s-1"))] == denied


def test_a_revocation_is_dropped_when_all_its_tokens_have_expired() -> None:
    now = 0.0
    denylist = Denylist(keep=330, clock=lambda: now)
    for number in range(10):
        denylist.revoke_session(SessionRevoked(session_id=f"s-{number}"))
        denylist.revoke_subject(SubjectRevoked(subject=f"u-{number}", min_session_version=1))
    now = 330
    denylist.revoke_session(SessionRevoked(session_id="s-10"))
    assert (list(denylist._sessions), list(denylist._subjects)) == (["s-10"], [])


class OwnToken:
    async def token(self) -> str:
        return "token"

    def forget(self, token: str) -> None: ...


class Auth:
    """Auth as the feed uses it: an exchange, and a snapshot over HTTP that can be unavailable."""

    def __init__(self, amqp_url: str) -> None:
        self.amqp_url = amqp_url
        self.sessions: list[str] = []
        self.is_unavailable = False
        self.requests = 0
        self.keys_changed = asyncio.Event()
        self.denylist = Denylist()
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.feed = RevocationFeed(
            "orders",
            amqp_url,
            ServiceClient(http, "http://auth.test", OwnToken()),
            self.denylist,
            on_keys_changed=self.keys_changed.set,
        )

    def _answer(self, _request: httpx.Request) -> httpx.Response:
        if self.is_unavailable:
            raise httpx.ConnectError("unavailable")
        self.requests += 1
        sessions = [{"session_id": session} for session in self.sessions]
        return httpx.Response(200, json={"sessions": sessions, "subjects": []})

    async def publish(self, event_type: str, data: str) -> None:
        event = Envelope(id=new_id(), type=event_type, subject="s", version=1, time=utc_now(), data=data)
        body, properties = encode(event)
        connection = await aio_pika.connect(self.amqp_url)
        async with connection:
            channel = await (await connection.channel()).get_underlay_channel()
            await channel.basic_publish(body, exchange="auth.events", routing_key=event_type, properties=properties)

    async def declare(self) -> None:
        connection = await aio_pika.connect(self.amqp_url)
        async with connection:
            channel = await connection.channel()
            await channel.declare_exchange("auth.events", ExchangeType.TOPIC, durable=True)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.feed.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def attached(self) -> bool:
        return self.feed._attached and self.feed._loaded

    async def denied(self, **claims: Any) -> bool:
        return self.denylist.denies(await principal(**claims))


@pytest.fixture
async def auth(amqp_url: str) -> Auth:
    auth = Auth(amqp_url)
    await auth.declare()
    return auth


async def test_an_event_reaches_the_verifier_of_a_token_used_before(auth: Auth) -> None:
    verify = ISSUER.verifier("orders", denylist=auth.denylist).verify
    token = ISSUER.mint(USER, sid="s-1")
    async with auth.listening():
        await eventually(auth.attached)
        await verify(token)
        await auth.publish("auth.session.revoked.v1", '{"session_id": "s-1", "reason": "logout"}')
        await eventually(lambda: auth.denied(sid="s-1"))
        with pytest.raises(InvalidToken):
            await verify(token)


async def test_a_subjects_revocation_and_changed_keys_arrive_too(auth: Auth) -> None:
    async with auth.listening():
        await eventually(auth.attached)
        await auth.publish("auth.subject.revoked.v1", f'{{"subject": "{USER}", "min_session_version": 2}}')
        await auth.publish("auth.keys.changed.v1", '{"kid": "k"}')
        await eventually(lambda: auth.denied(sv=1))
        async with asyncio.timeout(5):
            await auth.keys_changed.wait()


async def test_a_process_that_starts_late_reads_the_earlier_revocations(auth: Auth) -> None:
    auth.sessions = ["s-1"]
    with pytest.raises(ConnectionError):
        await auth.feed.check()
    async with auth.listening():
        await eventually(auth.attached)
        assert await auth.denied(sid="s-1")
        await auth.feed.check()


async def test_a_lost_connection_is_restored_and_a_new_snapshot_is_read(auth: Auth) -> None:
    async with auth.listening():
        await eventually(auth.attached)
        requests = auth.requests
        auth.sessions = ["s-1"]
        await close_connections(auth.amqp_url)
        await eventually(lambda: auth.denied(sid="s-1"))
        assert auth.requests > requests
        await eventually(auth.attached)
        await auth.publish("auth.session.revoked.v1", '{"session_id": "s-2"}')
        await eventually(lambda: auth.denied(sid="s-2"))


async def test_a_binding_lost_with_its_exchange_is_restored_and_a_new_snapshot_is_read(
    auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.security.revocation._BIND_INTERVAL", 0.2)
    async with auth.listening():
        await eventually(auth.attached)
        async with await aio_pika.connect(auth.amqp_url) as connection:
            await (await connection.channel()).exchange_delete("auth.events")
        auth.sessions = ["s-1"]
        await auth.declare()
        await eventually(lambda: auth.denied(sid="s-1"))

        async def arrives() -> bool:
            await auth.publish("auth.session.revoked.v1", '{"session_id": "s-2"}')
            return await auth.denied(sid="s-2")

        await eventually(arrives)


async def test_an_undecodable_message_does_not_stop_the_feed(auth: Auth) -> None:
    async with auth.listening():
        await eventually(auth.attached)
        await auth.publish("auth.session.revoked.v1", '{"session": null}')
        await auth.publish("auth.session.revoked.v1", '{"session_id": "s-2"}')
        await eventually(lambda: auth.denied(sid="s-2"))


async def test_without_a_broker_the_snapshot_is_still_read() -> None:
    auth = Auth("amqp://127.0.0.1:1/")
    auth.sessions = ["s-1"]
    async with auth.listening():
        await eventually(lambda: auth.denied(sid="s-1"))
        await auth.feed.check()


async def test_without_auth_a_process_is_ready_after_one_token_lifetime(amqp_url: str) -> None:
    auth = Auth(amqp_url)
    auth.is_unavailable = True
    async with auth.listening():
        with pytest.raises(ConnectionError):
            await auth.feed.check()
        auth.feed._ready_at -= 310
        await auth.feed.check()


async def close_connections(amqp_url: str) -> None:
    """Closes all connections of the virtual host, as a restarting broker does."""
    vhost = quote(urlsplit(amqp_url).path[1:], safe="")

    async def closed() -> bool:
        async with management() as api:
            listed = (await api.get(f"/api/vhosts/{vhost}/connections")).json()
            for connection in listed:
                await api.delete(f"/api/connections/{quote(connection['name'])}")
        return bool(listed)

    await eventually(closed)
