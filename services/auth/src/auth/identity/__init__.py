"""Who a person is, for the clients that they allowed to know it (OpenID Connect Core 1.0 §5.3)."""
