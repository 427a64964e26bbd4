"""The OAuth endpoints: token, revocation, introspection and metadata."""
