"""Import path for services outside this repository: see `docs/tokens.md`. Ours import `common.security.jwks`."""

from common.security.jwks import JwksClient

__all__ = ["JwksClient"]
