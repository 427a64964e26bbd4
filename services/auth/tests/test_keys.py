"""Signing keys: published before and after they sign, never stored in clear."""

import json
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from auth import queries
from auth.keys import handlers
from auth.keys.handlers import KeyPolicy
from auth.keys.keypairs import generate, unseal
from auth.keys.keyring import Keyring, policy_of
from auth.models import KeyStatus, SigningKey
from auth.settings import Settings
from auth.tokens.access import AccessTokenContent, claims
from common.db.database import Database, new_id, utc_now
from common.errors import Unavailable
from common.security.sealing import KeyEncryption, WrongKeyEncryptionKey
from common.security.tokens import TokenVerifier
from common.security.verification_keys import StaticKeys, parse_jwk
from common.settings import resource

from .conftest import Auth, Users, serving
from .test_refresh import events

ENCRYPTION = KeyEncryption(b"k" * 32)
POLICY = KeyPolicy("ES256", timedelta(minutes=15), timedelta(days=30), timedelta(minutes=15))


async def advance(database: Database, now: datetime, policy: KeyPolicy = POLICY) -> None:
    async with database.transaction() as session:
        await handlers.advance_keys(session, ENCRYPTION, policy, now)


async def statuses(database: Database) -> list[str]:
    async with database.transaction() as session:
        return [key.status for key in await queries.signing_keys(session)]


async def kids(database: Database) -> list[str]:
    async with database.transaction() as session:
        return [key.kid for key in await queries.signing_keys(session)]


async def test_the_first_key_signs_at_once(auth: Auth, database: Database) -> None:
    assert await statuses(database) == ["active"]
    answer = await auth.http.get("/.well-known/jwks.json")
    (jwk,) = answer.json()["keys"]
    assert jwk.keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert (jwk["alg"], jwk["use"]) == ("ES256", "sig")


async def test_replicas_that_start_together_create_one_key(settings: Settings, users: Users) -> None:
    async with serving(settings, users) as one, serving(settings, users) as other:
        keys = [(await auth.http.get("/.well-known/jwks.json")).json() for auth in (one, other)]
    assert keys[0] == keys[1]


async def test_the_key_set_can_be_cached_and_revalidated(auth: Auth) -> None:
    answer = await auth.http.get("/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert answer.headers["Content-Type"] == "application/json"
    tag = answer.headers["ETag"]
    for known in (tag, f'W/{tag}, "x"', "*"):
        again = await auth.http.get("/.well-known/jwks.json", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert (await auth.http.get("/.well-known/jwks.json", headers={"If-None-Match": '"x"'})).status_code == 200


async def test_a_key_goes_through_all_its_statuses(database: Database) -> None:
    start = utc_now()
    await advance(database, start)
    await advance(database, start + timedelta(days=29))
    assert await statuses(database) == ["active"]
    # The successor is published 15 minutes before the key is replaced.
    await advance(database, start + timedelta(days=30, minutes=-15))
    assert await statuses(database) == ["active", "pending"]
    await advance(database, start + timedelta(days=30, seconds=-1))
    assert await statuses(database) == ["active", "pending"]
    await advance(database, start + timedelta(days=30))
    assert await statuses(database) == ["retiring", "active"]
    await advance(database, start + timedelta(days=30, minutes=14))
    assert await statuses(database) == ["retiring", "active"]
    await advance(database, start + timedelta(days=30, minutes=15))
    assert await statuses(database) == ["active"]
    recorded = [(data["status"], version) for _, version, data in await events(database)]
    assert recorded == [("active", 1), ("pending", 1), ("retiring", 2), ("active", 2), ("gone", 3)]


async def test_an_overdue_successor_is_still_published_before_it_signs(database: Database) -> None:
    """Auth did not run for two months. Verifiers must still fetch the next key before it signs."""
    start = utc_now()
    await advance(database, start)
    await advance(database, start + timedelta(days=60))
    assert await statuses(database) == ["active", "pending"]
    await advance(database, start + timedelta(days=60, minutes=14))
    assert await statuses(database) == ["active", "pending"]
    await advance(database, start + timedelta(days=60, minutes=15))
    assert await statuses(database) == ["retiring", "active"]


async def test_a_change_of_algorithm_adds_a_new_key(database: Database) -> None:
    start = utc_now()
    await advance(database, start)
    rs256 = KeyPolicy("RS256", POLICY.pending, POLICY.active, POLICY.retiring)
    await advance(database, start + timedelta(hours=1), rs256)
    await advance(database, start + timedelta(hours=1, minutes=15), rs256)
    async with database.transaction() as session:
        keys = await queries.signing_keys(session)
    assert [(key.alg, key.status) for key in keys] == [("ES256", "retiring"), ("RS256", "active")]


async def test_rs256_can_be_set_and_is_signed_published_and_verified(settings: Settings, users: Users) -> None:
    ada = users.add("ada@example.com")
    async with serving(settings.model_copy(update={"signing_algorithm": "RS256"}), users) as auth:
        token = (await auth.sign_in(ada))["access_token"]
        assert jwt.get_unverified_header(token)["alg"] == "RS256"
        assert (await auth.principal(token)).user_id == ada.user_id
        (jwk,) = (await auth.http.get("/.well-known/jwks.json")).json()["keys"]
        assert jwk.keys() == {"kty", "n", "e", "kid", "alg", "use"}
        answer = await auth.http.get("/sessions", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200


async def test_a_rotation_publishes_at_once_and_can_be_repeated(database: Database) -> None:
    start = utc_now()
    await advance(database, start)
    for minute in (1, 2):
        async with database.transaction() as session:
            await handlers.add_pending_key(session, ENCRYPTION, POLICY, start + timedelta(minutes=minute))
    assert await statuses(database) == ["active", "pending", "pending"]
    await advance(database, start + timedelta(minutes=20))
    assert await statuses(database) == ["retiring", "retiring", "active"]


async def test_a_rotation_invalidates_no_token(database: Database, settings: Settings) -> None:
    """A verifier that fetched the key set while the new key was pending can verify what it signs."""
    keyring = Keyring(database, settings)
    await keyring.reload()
    old = keyring.sign(payload(settings))
    async with database.transaction() as session:
        await handlers.add_pending_key(session, ENCRYPTION, policy_of(settings), utc_now())
    await keyring.reload()
    published = StaticKeys([parse_jwk(jwk) for jwk in json.loads(keyring.key_set.body)["keys"]])
    verifier = TokenVerifier(issuer=settings.public_url, audience=resource("orders"), keys=published)
    await advance(database, utc_now() + timedelta(minutes=15))
    await keyring.reload()
    new = keyring.sign(payload(settings))
    assert jwt.get_unverified_header(old)["kid"] != jwt.get_unverified_header(new)["kid"]
    for token in (old, new):
        await verifier.verify(token)
        assert await keyring.find(jwt.get_unverified_header(token)["kid"]) is not None


def payload(settings: Settings) -> dict[str, Any]:
    content = AccessTokenContent("client", "client", ("orders:read",), (resource("orders"),), new_id(), 1)
    return claims(content, issuer=settings.public_url, now=utc_now(), lifetime=timedelta(seconds=300))


async def test_an_emergency_leaves_only_a_new_key(database: Database) -> None:
    start = utc_now()
    await advance(database, start)
    (old,) = await kids(database)
    async with database.transaction() as session:
        await handlers.replace_all_keys(session, ENCRYPTION, POLICY, start)
    (new,) = await kids(database)
    assert new != old
    assert await statuses(database) == ["active"]
    recorded = [(data["kid"], data["status"]) for _, _, data in await events(database)]
    assert recorded == [(old, "active"), (old, "gone"), (new, "active")]


async def test_private_keys_are_encrypted_at_rest_and_bound_to_their_row(auth: Auth, database: Database) -> None:
    async with database.transaction() as session:
        (key,) = await queries.signing_keys(session)
        stored = (await session.execute(text("SELECT signing_keys::text FROM signing_keys"))).scalar_one()
    private = unseal(ENCRYPTION, key)
    secret = private.private_numbers().private_value  # type: ignore[union-attr]
    assert f"{secret:064x}" not in stored
    assert '"d"' not in json.dumps(key.jwk)
    assert key.sealed is not None
    assert b'"d"' not in key.sealed
    other = generate(ENCRYPTION, "ES256", status=KeyStatus.ACTIVE, now=utc_now(), changes_at=utc_now())
    other.sealed = key.sealed
    with pytest.raises(WrongKeyEncryptionKey):
        unseal(ENCRYPTION, other)
    with pytest.raises(WrongKeyEncryptionKey):
        unseal(KeyEncryption(b"x" * 32), key)


async def test_keys_are_rewrapped_under_a_new_encryption_key(database: Database) -> None:
    await advance(database, utc_now())
    successor = KeyEncryption(b"n" * 32)
    async with database.transaction() as session:
        assert await handlers.rewrap_keys(session, ENCRYPTION, successor) == 1
        assert await handlers.rewrap_keys(session, ENCRYPTION, successor) == 0
    async with database.transaction() as session:
        (key,) = await queries.signing_keys(session)
    assert key.kek_id == successor.id
    unseal(successor, key)


async def test_with_a_wrong_key_encryption_key_auth_is_not_ready(database: Database, settings: Settings) -> None:
    await advance(database, utc_now())
    changed = settings.model_copy(update={"key_encryption_key": SecretStr("A" * 43 + "=")})
    keyring = Keyring(database, changed)
    with pytest.raises(WrongKeyEncryptionKey):
        await keyring.reload()
    with pytest.raises(ConnectionError):
        await keyring.check()
    with pytest.raises(Unavailable):
        keyring.sign({})
    with pytest.raises(Unavailable):
        _ = keyring.key_set


async def test_two_active_keys_are_impossible(database: Database) -> None:
    def key() -> SigningKey:
        return generate(ENCRYPTION, "ES256", status=KeyStatus.ACTIVE, now=utc_now(), changes_at=utc_now())

    with pytest.raises(Exception, match="uq_signing_keys_active"):
        async with database.transaction() as session:
            session.add_all([key(), key()])
