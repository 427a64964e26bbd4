"""The OAuth endpoints: token, revocation, introspection, metadata and key set."""
