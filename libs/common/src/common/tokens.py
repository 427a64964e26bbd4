"""Import path for services outside this repository: see `docs/tokens.md`. Ours import `common.security.tokens`."""

from common.security.tokens import Denylist, InvalidToken, NotAPerson, Principal, TokenVerifier

__all__ = ["Denylist", "InvalidToken", "NotAPerson", "Principal", "TokenVerifier"]
