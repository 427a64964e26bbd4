"""Signing keys: made, sealed at rest, rotated, published."""
