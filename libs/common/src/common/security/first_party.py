"""Our own clients. A person's token from any other client does what its scopes say and nothing else."""

from typing import Final

FIRST_PARTY: Final = frozenset({"web", "console"})
"""Client ids. Only these have the rights of the person's role, and of routes that name no scope."""
