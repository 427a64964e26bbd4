"""The content of access tokens and refresh tokens."""
