"""Token verification for a service's lifespan: keys, revocations and verifier in one block."""

import contextlib
from collections.abc import AsyncIterator

from common.runtime.background import background
from common.runtime.health import Health
from common.security.jwks import JwksClient
from common.security.revocation import SCOPE, Denylist, RevocationFeed
from common.security.service_client import ServiceClient, http_client
from common.security.service_token import ClientCredentials
from common.security.tokens import TokenVerifier
from common.settings import ClientSettings, resource


@contextlib.asynccontextmanager
async def token_verifier(settings: ClientSettings, health: Health) -> AsyncIterator[TokenVerifier]:
    """The verifier of a service's tokens, for the length of the block.

    It starts without waiting for auth: until the keys are known it raises `Unavailable`, and until the first revocation
    snapshot is loaded `health` reports not ready.
    """
    async with http_client() as http:
        own_tokens = ClientCredentials(http, settings, scope=SCOPE, resource=resource("auth"))
        keys = JwksClient(http, f"{settings.auth_url}/.well-known/jwks.json")
        denylist = Denylist()
        feed = RevocationFeed(
            settings.service,
            settings.amqp_url.get_secret_value(),
            ServiceClient(http, settings.auth_url, own_tokens),
            denylist,
            on_keys_changed=keys.keys_changed,
        )
        health.add("revocations", feed.check)
        try:
            async with background(keys.run, feed.run):
                yield TokenVerifier(
                    issuer=settings.public_url, audience=settings.audience, keys=keys, denylist=denylist
                )
        finally:
            await keys.refresh.close()
            await own_tokens.close()
