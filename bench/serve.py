"""A server of its own process: `python -m bench.serve`, told by a JSON line what to serve, tells its port.

Whatever is compared runs behind the same server, with the same event loop and the same settings of the collector.
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
    """The API as it is, but for auth: tokens are checked against a key that is given."""
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
    told = json.loads(sys.stdin.readline())
    health = Health()
    configure_logging("orders", "api", "info")
    if told["app"] == "orders":
        app = orders(told["database_url"], told["issuer"], told["jwk"], health)
    else:
        app = CEILINGS[told["app"]](told["database_url"])
    socket = listen("127.0.0.1", 0)
    print(json.dumps({"port": socket.getsockname()[1]}), flush=True)
    serve_api(app, health, [socket], drain_seconds=0)


if __name__ == "__main__":
    main()
