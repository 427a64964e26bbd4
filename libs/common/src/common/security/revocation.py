"""What auth revoked, known in every process that verifies tokens: fed by events, so that no request asks anybody.

Each process has a queue of its own on auth's exchange. It binds first and reads auth's snapshot then, so that nothing
falls between the two; after a lost connection it does both again. While the broker is away the snapshot is read every
few seconds instead.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog
from aiormq.abc import DeliveredMessage
from prometheus_client import Histogram
from pydantic import BaseModel, ValidationError

from common.db.database import utc_now
from common.errors import Unavailable
from common.messaging import broker
from common.messaging.cloudevents import Undecodable, decode, exchange_of
from common.security.service_client import ServiceClient
from common.security.tokens import Principal

log = structlog.get_logger(__name__)

SCOPE: Final = "revocations:read"
SESSION_REVOKED: Final = "auth.session.revoked.v1"
SUBJECT_REVOKED: Final = "auth.subject.revoked.v1"
KEYS_CHANGED: Final = "auth.keys.changed.v1"

LAG: Final = Histogram(
    "waybill_revocation_lag_seconds",
    "From a revocation at auth to its denial here.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300),
)
_WITHOUT_BROKER: Final = 5.0
_RETRY: Final = 1.0


class SessionRevoked(BaseModel):
    session_id: str


class SubjectRevoked(BaseModel):
    """Tokens of `subject` below `min_session_version` are void; those of the excepted session only below
    `except_session_version`: what was void before stays so.
    """

    subject: str
    min_session_version: int
    except_session_id: str | None = None
    except_session_version: int | None = None


class Snapshot(BaseModel):
    """Auth's answer to `GET /internal/revocations`: all that may still concern an unexpired token."""

    sessions: list[SessionRevoked]
    subjects: list[SubjectRevoked]


class _Cut(NamedTuple):
    min_version: int
    spared: str | None
    spared_version: int
    forget_at: float


class Denylist:
    """Revoked sessions and subjects, each kept for `keep` seconds: longer than any token lives that it concerns."""

    def __init__(self, *, keep: float = 330.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep = keep
        self._clock = clock
        # Both in the order of forgetting: what is revoked again moves to the end.
        self._sessions: dict[str, float] = {}
        self._subjects: dict[str, _Cut] = {}

    def denies(self, principal: Principal) -> bool:
        if principal.session_id in self._sessions:
            return True
        cut = self._subjects.get(principal.subject)
        if cut is None:
            return False
        is_spared = cut.spared is not None and principal.session_id == cut.spared
        return (principal.session_version or 0) < (cut.spared_version if is_spared else cut.min_version)

    def revoke_session(self, revoked: SessionRevoked) -> None:
        self._sessions.pop(revoked.session_id, None)
        self._sessions[revoked.session_id] = self._forget_at()

    def revoke_subject(self, revoked: SubjectRevoked) -> None:
        """A later cut replaces an earlier one; an earlier one that arrives late changes nothing."""
        known = self._subjects.get(revoked.subject)
        if known is not None and known.min_version > revoked.min_session_version:
            return
        self._subjects.pop(revoked.subject, None)
        self._subjects[revoked.subject] = _Cut(
            revoked.min_session_version,
            revoked.except_session_id,
            revoked.except_session_version or 0,
            self._forget_at(),
        )

    def load(self, snapshot: Snapshot) -> None:
        for session in snapshot.sessions:
            self.revoke_session(session)
        for subject in snapshot.subjects:
            self.revoke_subject(subject)

    def _forget_at(self) -> float:
        now = self._clock()
        while self._sessions and next(iter(self._sessions.values())) <= now:
            del self._sessions[next(iter(self._sessions))]
        while self._subjects and next(iter(self._subjects.values())).forget_at <= now:
            del self._subjects[next(iter(self._subjects))]
        return now + self._keep


class RevocationFeed:
    """Keeps a denylist up to date. `on_keys_changed` is called when auth says that its keys did."""

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
        """Ready once the first snapshot is loaded, or no token is left that it could have been about."""
        if not self._loaded and time.monotonic() < self._ready_at:
            raise ConnectionError("no revocation snapshot yet")

    async def run(self) -> None:
        """Until cancelled."""
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
            for event_type in (SESSION_REVOKED, SUBJECT_REVOKED, KEYS_CHANGED):
                await channel.queue_bind(queue, exchange_of("auth"), event_type)
            await channel.basic_consume(queue, self._receive, no_ack=True)
            self._attached = True
            self._stale.set()
            log.info("listening for revocations", queue=queue)
            try:
                await lost.wait()
            finally:
                self._attached = False
                self._stale.set()
        raise ConnectionError("the broker closed the revocations' channel")

    async def _receive(self, message: DeliveredMessage) -> None:
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
            log.error("revocation not understood", error=type(error).__name__)  # noqa: TRY400 - no payload in logs

    async def _read_snapshots(self) -> None:
        while True:
            self._stale.clear()
            pause: float | None = _WITHOUT_BROKER if not self._attached else None
            try:
                answer = await self._auth.get("/internal/revocations")
                if answer.status_code != 200:
                    raise Unavailable(f"revocations answered {answer.status_code}")
                self._denylist.load(Snapshot.model_validate_json(answer.content))
            except (Unavailable, ValidationError) as error:
                log.warning("no revocation snapshot, will try again", error=type(error).__name__)
                pause = _RETRY
            else:
                self._loaded = True
            try:
                await asyncio.wait_for(self._stale.wait(), pause)
            except TimeoutError:
                continue
