"""The pages in a browser: sign in, allow a client, sign out (RFC 6749 §4.1, OpenID Connect Core 1.0)."""
