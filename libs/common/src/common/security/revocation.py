"""Auth's revocations, in the memory of every process that verifies tokens, so that no request needs a call for them.

Each process has its own queue on auth's exchange. It binds the queue first and reads auth's snapshot second, so that no
revocation is lost in between, and does both again after a lost connection. While the broker is unavailable it reads the
snapshot every few seconds instead.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Final, NamedTuple

from aiormq.abc import DeliveredMessage
from prometheus_client import Histogram
from pydantic import BaseModel, ValidationError

from common.db.database import utc_now
from common.errors import Unavailable
from common.messaging import broker
from common.messaging.cloudevents import Undecodable, decode, exchange_of
from common.observability.log_limit import limited_logger
from common.runtime.background import first_of
from common.security.service_client import ServiceClient
from common.security.tokens import Principal

log = limited_logger(__name__)

SCOPE: Final = "revocations:read"
SESSION_REVOKED: Final = "auth.session.revoked.v1"
SUBJECT_REVOKED: Final = "auth.subject.revoked.v1"
KEYS_CHANGED: Final = "auth.keys.changed.v1"

LAG: Final = Histogram(
    "waybill_revocation_lag_seconds",
    "Seconds from a revocation at auth until this process denies its tokens.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300),
)
_POLL_INTERVAL: Final = 5.0
"""Seconds between snapshots while the broker is unavailable."""
_BIND_INTERVAL: Final = 60.0
"""Seconds between bindings, each followed by a snapshot."""
_RETRY_INTERVAL: Final = 1.0
"""Seconds until the next attempt after a snapshot failed."""


class SessionRevoked(BaseModel):
    session_id: str


class SubjectRevoked(BaseModel):
    """Revokes the tokens of `subject` whose session version is below `min_session_version`.

    The excepted session has the limit `except_session_version`, so that its tokens revoked before stay revoked.
    """

    subject: str
    min_session_version: int
    except_session_id: str | None = None
    except_session_version: int | None = None


class Snapshot(BaseModel):
    """Auth's answer to `GET /internal/revocations`: every revocation that may concern an unexpired token."""

    sessions: list[SessionRevoked]
    subjects: list[SubjectRevoked]


class _Revocation(NamedTuple):
    min_version: int
    excepted_session: str | None
    excepted_min_version: int
    expires_at: float


class Denylist:
    """Revoked sessions and subjects, each kept for `keep` seconds: longer than the lifetime of a token it concerns.

    The dictionaries are in the order of expiry: a repeated revocation moves to the end.
    """

    def __init__(self, *, keep: float = 330.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep = keep
        self._clock = clock
        self._sessions: dict[str, float] = {}
        self._subjects: dict[str, _Revocation] = {}

    def denies(self, principal: Principal) -> bool:
        if principal.session_id in self._sessions:
            return True
        revocation = self._subjects.get(principal.subject)
        if revocation is None:
            return False
        is_excepted = principal.session_id is not None and principal.session_id == revocation.excepted_session
        return (principal.session_version or 0) < (
            revocation.excepted_min_version if is_excepted else revocation.min_version
        )

    def revoke_session(self, revoked: SessionRevoked) -> None:
        self._sessions.pop(revoked.session_id, None)
        self._sessions[revoked.session_id] = self._expiry()

    def revoke_subject(self, revoked: SubjectRevoked) -> None:
        """A later revocation replaces an earlier one. An earlier one that arrives late is ignored.

        Of two with the same version either may be the later, since events are repeated: what one denies stays denied.
        """
        excepted, excepted_min_version = revoked.except_session_id, revoked.except_session_version or 0
        known = self._subjects.get(revoked.subject)
        if known is not None and known.min_version > revoked.min_session_version:
            return
        if known is not None and known.min_version == revoked.min_session_version:
            excepted = excepted if excepted == known.excepted_session else None
            excepted_min_version = max(excepted_min_version, known.excepted_min_version)
        self._subjects.pop(revoked.subject, None)
        self._subjects[revoked.subject] = _Revocation(
            revoked.min_session_version, excepted, excepted_min_version, self._expiry()
        )

    def load(self, snapshot: Snapshot) -> None:
        for session in snapshot.sessions:
            self.revoke_session(session)
        for subject in snapshot.subjects:
            self.revoke_subject(subject)

    def _expiry(self) -> float:
        """When a revocation added now expires. Drops those that have expired by now."""
        now = self._clock()
        while self._sessions and next(iter(self._sessions.values())) <= now:
            del self._sessions[next(iter(self._sessions))]
        while self._subjects and next(iter(self._subjects.values())).expires_at <= now:
            del self._subjects[next(iter(self._subjects))]
        return now + self._keep


class RevocationFeed:
    """Keeps a denylist up to date, and calls `on_keys_changed` when auth publishes that its keys changed.

    `ready_after` is seconds: after the maximum lifetime of a token, the process is ready even without a snapshot.
    """

    def __init__(
        self,
        service: str,
        amqp_url: str,
        auth: ServiceClient,
        denylist: Denylist,
        *,
        on_keys_changed: Callable[[], object],
        ready_after: float = 310.0,
    ) -> None:
        self._service = service
        self._amqp_url = amqp_url
        self._auth = auth
        self._denylist = denylist
        self._on_keys_changed = on_keys_changed
        self._ready_at = time.monotonic() + ready_after
        self._loaded = False
        self._attached = False
        self._stale = asyncio.Event()

    async def check(self) -> None:
        """Passes once a snapshot was loaded, or every token that a missing snapshot could deny has expired."""
        if not self._loaded and time.monotonic() < self._ready_at:
            raise ConnectionError("no revocation snapshot yet")

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                broker.run_with_reconnect(self._listen, asyncio.Event(), what=f"{self._service}.revocations")
            )
            tasks.create_task(self._read_snapshots())

    async def _listen(self) -> None:
        async with broker.connect(self._amqp_url, f"{self._service}-revocations") as connection:
            channel = await broker.raw_channel(connection, confirms=False)
            lost = asyncio.Event()
            channel.closing.add_done_callback(lambda _: lost.set())
            channel.on_consumer_cancel_callbacks.add(lambda _: lost.set())
            queue = f"{self._service}.revocations.{uuid.uuid4().hex}"
            await channel.queue_declare(queue, exclusive=True, auto_delete=True)
            await channel.basic_consume(queue, self._receive, no_ack=True)
            try:
                while not lost.is_set():  # again and again, because somebody may remove a binding
                    for event_type in (SESSION_REVOKED, SUBJECT_REVOKED, KEYS_CHANGED):
                        await channel.queue_bind(queue, exchange_of("auth"), event_type)
                    if not self._attached:
                        log.info("listening for revocations", queue=queue)
                    self._attached = True
                    self._stale.set()
                    await first_of(lost, within=_BIND_INTERVAL)
            finally:
                self._attached = False
                self._stale.set()
        raise ConnectionError("the broker closed the channel of the revocations")

    async def _receive(self, message: DeliveredMessage) -> None:
        if message.exchange != exchange_of("auth"):
            log.error("forged revocation", exchange=message.exchange)
            return
        try:
            event = decode(message.body, message.header.properties)
            if event.type == SESSION_REVOKED:
                self._denylist.revoke_session(SessionRevoked.model_validate_json(event.data))
            elif event.type == SUBJECT_REVOKED:
                self._denylist.revoke_subject(SubjectRevoked.model_validate_json(event.data))
            else:
                self._on_keys_changed()
            LAG.observe(max(0.0, (utc_now() - event.time).total_seconds()))
        except (Undecodable, ValidationError) as error:
            log.error("undecodable revocation", error=type(error).__name__)  # noqa: TRY400 - no payload in logs

    async def _read_snapshots(self) -> None:
        while True:
            self._stale.clear()
            pause: float | None = _POLL_INTERVAL if not self._attached else None
            try:
                answer = await self._auth.get("/internal/revocations")
                if answer.status_code != 200:
                    raise Unavailable(f"the snapshot's status is {answer.status_code}")
                self._denylist.load(Snapshot.model_validate_json(answer.content))
            except (Unavailable, ValidationError) as error:
                log.warning("revocation snapshot not read, retrying", error=type(error).__name__)
                pause = _RETRY_INTERVAL
            else:
                self._loaded = True
            await first_of(self._stale, within=pause)
