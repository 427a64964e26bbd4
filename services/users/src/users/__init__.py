"""People and their credentials: sign-up, profiles, roles, passwords, one-time links."""
