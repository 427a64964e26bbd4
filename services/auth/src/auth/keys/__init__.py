"""Signing keys: generated, encrypted at rest, rotated, published."""
