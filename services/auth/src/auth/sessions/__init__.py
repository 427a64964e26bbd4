"""Sessions and subjects: sign-in, refresh, sign-out, revocation."""
