"""Access tokens and refresh tokens: what they hold."""
