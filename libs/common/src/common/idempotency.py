"""Idempotency-Key: a request that is sent again gets its first answer again, and has no second effect.

The answer is kept in the transaction that has the effect, so there is never one without the other. A refused request
keeps nothing: its key stays free. Semantics after draft-ietf-httpapi-idempotency-key-header.

    attempt = Attempt.of(subject=principal.subject, route="place_order", key=key, request=await request.json())
    if (answer := await find(session, attempt)) is not None:
        return answer.response()
    …
    answer = Answer(201, {"Location": …}, order.model_dump_json().encode())
    await store(session, attempt, answer)
    return answer.response()

A write that is one statement itself takes `STORE` into it, as its first common table expression.
"""

import hashlib
import json
from datetime import timedelta
from typing import Annotated, Any, Final, NamedTuple, Self

from fastapi import Header
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from common.database import NAMING
from common.errors import Conflict, Unprocessable

RETENTION: Final = timedelta(hours=24)

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any unique text, such as a UUID. The same request with the same key has its effect once.",
    ),
]

metadata: Final = MetaData(naming_convention=NAMING)

idempotency_keys: Final = Table(
    "idempotency_keys",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index(None, "created_at"),
    CheckConstraint("length(key) BETWEEN 1 AND 255", name="key_length"),
)


class KeyReused(Unprocessable):
    code, title = "idempotency_key_reused", "Idempotency key used for another request"


class InFlight(Conflict):
    code, title = "idempotency_key_in_flight", "The same request is being carried out"

    def __init__(self) -> None:
        super().__init__("Ask again in a moment for its answer.", headers={"Retry-After": "1"})


class Answer(NamedTuple):
    """What was answered, byte for byte."""

    status: int
    headers: dict[str, str]
    body: bytes

    def response(self) -> Response:
        return Response(self.body, self.status, self.headers, "application/json")


class Attempt(NamedTuple):
    """One request that carries a key. Keys of other people and other routes are other keys."""

    subject: str
    route: str
    key: str
    fingerprint: bytes

    @classmethod
    def of(cls, *, subject: str, route: str, key: str, request: Any) -> Self:
        """`request` is all that makes it this request and no other: the parsed body, with path parameters if any.

        Two bodies that differ in white space or in the order of their keys are the same request.
        """
        canonical = json.dumps(request, sort_keys=True, separators=(",", ":"))
        return cls(subject, route, key, hashlib.sha256(canonical.encode()).digest())

    @property
    def lock(self) -> int:
        """The advisory lock that the one transaction holds which may have the effect."""
        name = f"{self.subject}\0{self.route}\0{self.key}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)

    def parameters(self, answer: Answer) -> tuple[Any, ...]:
        """`$1` to `$8` of `STORE`, as asyncpg takes them."""
        return (*self, answer.status, json.dumps(answer.headers), answer.body, self.lock)


STORE: Final = """
INSERT INTO idempotency_keys AS k (subject, route, key, fingerprint, status, headers, body)
SELECT $1, $2, $3, $4::bytea, $5::smallint, $6::jsonb, $7::bytea WHERE pg_try_advisory_xact_lock($8::bigint)
ON CONFLICT (subject, route, key) DO UPDATE
SET fingerprint = excluded.fingerprint, status = excluded.status, headers = excluded.headers, body = excluded.body,
    created_at = now()
WHERE k.created_at < now() - interval '24 hours'
RETURNING 1"""
"""Keeps the answer, or returns no row where the key is taken: then write nothing, and ask `find` why."""

_keys: Final = idempotency_keys.c
_lock: Final = select(func.pg_try_advisory_xact_lock(bindparam("lock", type_=BigInteger)).label("is_ours")).subquery(
    "lock"
)
_FIND: Final = select(_lock.c.is_ours, _keys.fingerprint, _keys.status, _keys.headers, _keys.body).select_from(
    _lock.outerjoin(
        idempotency_keys,
        and_(
            _keys.subject == bindparam("subject"),
            _keys.route == bindparam("route"),
            _keys.key == bindparam("key"),
            _keys.created_at > func.now() - RETENTION,
        ),
    )
)


async def find(session: AsyncSession, attempt: Attempt) -> Answer | None:
    """The answer given before, or None where there is none and the key is now this transaction's until it ends.

    Raises KeyReused where the key came with another request, InFlight where another transaction holds it.
    """
    row = (await session.execute(_FIND, {"lock": attempt.lock, **attempt._asdict()})).one()
    if row.status is None:
        if not row.is_ours:
            raise InFlight
        return None
    if row.fingerprint != attempt.fingerprint:
        raise KeyReused("Use a new key for a new request.")
    return Answer(row.status, row.headers, row.body)


async def store(session: AsyncSession, attempt: Attempt, answer: Answer) -> None:
    """Keeps the answer in the caller's transaction. Raises InFlight where another one was kept since `find`."""
    connection = await session.connection()
    stored = await connection.exec_driver_sql(STORE, attempt.parameters(answer))
    if stored.first() is None:
        raise InFlight


async def sweep(session: AsyncSession, *, limit: int = 1000) -> int:
    """Deletes answers past their 24 hours, at most `limit`; returns how many. Safe to run in several processes."""
    old = select(_keys.subject, _keys.route, _keys.key).where(_keys.created_at < func.now() - RETENTION)
    victims = old.limit(limit).with_for_update(skip_locked=True)
    identity = tuple_(_keys.subject, _keys.route, _keys.key)
    swept = await session.execute(delete(idempotency_keys).where(identity.in_(victims)).returning(_keys.key))
    return len(swept.all())
