"""Signing out in a browser (OpenID Connect RP-Initiated Logout 1.0)."""
