"""The OAuth endpoints: token, revocation, introspection, metadata and key set; and the tokens that auth itself uses."""
