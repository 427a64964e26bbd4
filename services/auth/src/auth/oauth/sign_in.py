"""Checks a person's credentials, wherever they were typed: knows their devices, and keeps what is refused.

It owns its transactions: a network call lies between them.
"""

from datetime import datetime

from auth.errors import OAuthError, TemporarilyUnavailable
from auth.oauth.users_client import accounts, outcome_of, verify_credentials
from auth.sessions.handlers import VerifiedPerson
from auth.sign_ins.handlers import Origin, is_known_since, keep_refusal, known_device
from auth.tokens.device import KnownDevice
from common.db.database import Database, utc_now
from common.errors import Unavailable
from common.security.log_digests import LogDigests
from common.security.networks import network_of
from common.security.service_client import ServiceClient


class SignInCheck:
    """Checks credentials that were sent from a client's address, `network`, with `client_id`."""

    def __init__(self, database: Database, users: ServiceClient, secret: bytes) -> None:
        """`secret` is that of refresh tokens."""
        self._database = database
        self._users = users
        self._secret = secret
        self._digests = LogDigests(secret)

    def origin(self, network: str, device: str, client_id: str) -> Origin:
        return Origin(self._digests.of(network_of(network)), device, client_id)

    async def device(self, refresh_token: str | None, *, client_id: str) -> KnownDevice | None:
        """The device that a refresh token of an earlier session proves, if any."""
        if refresh_token is None:
            return None
        async with self._database.transaction() as session:
            return await known_device(session, refresh_token, client_id=client_id, secret=self._secret)

    async def known(self, device: KnownDevice | None, since: datetime | None) -> KnownDevice | None:
        """The device of a cookie, unless the cookie is older than what took the account back."""
        if device is None or since is None:
            return None
        async with self._database.transaction() as session:
            return device if await is_known_since(session, device, since) else None

    async def verify(
        self,
        username: str,
        password: str,
        *,
        network: str,
        origin: Origin,
        otp: str | None,
        device: KnownDevice | None,
        stale: VerifiedPerson | None,
    ) -> VerifiedPerson:
        """`verify_credentials`, which says what it raises. Keeps what users refuses.

        `stale` is the result of the time before, if `admit` refused it. With a second factor it is compared with the
        account instead: its code is used up, and would be wrong the second time.
        """
        if stale is not None and "mfa" in stale.amr:
            return await self._unchanged(stale)
        try:
            return await verify_credentials(
                self._users, username, password, network, otp=otp, device=device, digests=self._digests
            )
        except OAuthError as refusal:
            outcome = outcome_of(refusal)
            if refusal.account is not None and outcome != "unavailable":
                async with self._database.transaction() as session:
                    await keep_refusal(session, refusal.account, origin, outcome, now=utc_now())
            raise

    async def _unchanged(self, person: VerifiedPerson) -> VerifiedPerson:
        """Raises `TemporarilyUnavailable` if the account is not as it was when the code was used."""
        try:
            found = await accounts(self._users, [person.user_id])
        except Unavailable as error:
            raise TemporarilyUnavailable(headers={"Retry-After": "2"}) from error
        if [(each.status, each.role, each.version) for each in found] != [("active", person.role, person.version)]:
            raise TemporarilyUnavailable(headers={"Retry-After": "1"})
        return person
