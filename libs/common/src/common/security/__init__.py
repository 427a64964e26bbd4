"""Access tokens: local verification, revocation by event, and the tokens of calls between services."""
