"""`python -m bench.serve` reads from a JSON line what to serve, and prints the port as another.

All applications that are compared use the same server, event loop and garbage collector settings.
"""

import json
import sys
from typing import Any

from pydantic import SecretStr

from bench.ceilings import raw, tutorial
from common.observability.logs import configure_logging
from common.runtime.health import Health
from common.runtime.server import listen, serve_api
from common.security.tokens import TokenVerifier
from common.security.verification_keys import StaticKeys, parse_jwk
from common.settings import resource
from orders.app import create_app
from orders.settings import Settings

CEILINGS = {"raw": raw, "tutorial": tutorial}


def orders(database_url: str, issuer: str, jwk: dict[str, Any], health: Health) -> Any:
    """The real API, except that tokens are verified with a given key instead of auth's."""
    settings = Settings(
        database_url=SecretStr(database_url),
        amqp_url=SecretStr("amqp://nobody@broker.invalid/"),
        client_secret=SecretStr("unused"),
        public_url=issuer,
        auth_url="http://auth.invalid",
    )
    keys = StaticKeys([parse_jwk(jwk)])
    tokens = TokenVerifier(issuer=issuer, audience=resource("orders"), keys=keys)
    return create_app(settings, health, tokens=tokens)


def main() -> None:
    request = json.loads(sys.stdin.readline())
    health = Health()
    configure_logging("orders", "api", "info")
    if request["app"] == "orders":
        app = orders(request["database_url"], request["issuer"], request["jwk"], health)
    else:
        app = CEILINGS[request["app"]](request["database_url"])
    socket = listen("127.0.0.1", 0)
    print(json.dumps({"port": socket.getsockname()[1]}), flush=True)
    serve_api(app, health, [socket], drain_seconds=0)


if __name__ == "__main__":
    main()
