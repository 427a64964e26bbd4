"""What routes receive: the lifespan's state, the caller's network, and a principal who may call."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, ClassVar, Final, Literal

from fastapi import Depends, Request

from common.db.database import Database
from common.security import guards
from common.security.guards import Guard, require_scopes
from common.security.networks import network_of, site_of
from common.security.sealing import KeyEncryption
from common.security.tokens import Principal
from common.web.headers import client_address
from users.credentials import throttle
from users.credentials.concurrency_limiter import ConcurrencyLimiter
from users.credentials.passwords import HashingPool
from users.models import ADMIN
from users.settings import Settings


def _from_state(
    name: Literal["settings", "database", "hashing", "encryption", "login_limiter", "address_limiter"],
) -> Callable[[Request], Awaitable[Any]]:
    async def get(request: Request) -> Any:
        return getattr(request.state, name)

    return get


async def get_network(request: Request) -> str:
    return network_of(client_address(request))


SettingsDep = Annotated[Settings, Depends(_from_state("settings"))]
NetworkDep = Annotated[str, Depends(get_network)]
"""The caller's network, for limits."""
DatabaseDep = Annotated[Database, Depends(_from_state("database"))]
"""For routes that hash: they open more than one transaction, and none is open in between."""
HashingDep = Annotated[HashingPool, Depends(_from_state("hashing"))]
EncryptionDep = Annotated[KeyEncryption, Depends(_from_state("encryption"))]
"""For the secrets of authenticators."""
LoginLimiterDep = Annotated[ConcurrencyLimiter, Depends(_from_state("login_limiter"))]
AddressLimiterDep = Annotated[ConcurrencyLimiter, Depends(_from_state("address_limiter"))]
"""One at a time for each network: they lock the same row, and would wait for it on all database connections."""


class _CountAddress:
    """Counts an e-mail address that the caller's network requests a mail for. Raises `TooManyAddresses`.

    It happens before anything depends on an account, and in a transaction of its own, because requests of one network
    wait for each other here.
    """

    statuses: ClassVar = (429,)

    async def __call__(
        self, network: NetworkDep, settings: SettingsDep, database: DatabaseDep, limiter: AddressLimiterDep
    ) -> None:
        async with limiter.acquire(site_of(network)), database.transaction() as session:
            await throttle.count_address(session, network, limit=settings.addresses_per_network)


limit_mails: Final = Depends(_CountAddress())
PrincipalDep = Annotated[Principal, Depends(require_scopes("account"))]
RecentPrincipalDep = Annotated[Principal, Depends(Guard(scopes=("account",), max_age=guards.RECENT_SIGN_IN))]
"""For what a stolen access token must not do."""
may_manage_users: Final = Depends(Guard(scopes=("account",), roles=(ADMIN,)))
recent_sign_in: Final = Depends(guards.recent_sign_in)
may_verify_credentials: Final = Depends(require_scopes("credentials:verify"))
may_read_profiles: Final = Depends(require_scopes("profiles:read"))
may_issue_links: Final = Depends(require_scopes("links:issue"))
