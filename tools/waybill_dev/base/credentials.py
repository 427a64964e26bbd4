"""Passwords and keys of the local stack: random, created once, and kept in files that only their owner can read."""

import base64
import hashlib
import secrets
from pathlib import Path

from waybill_dev.base.state import State, write_private


def secret(state: State, owner: str, name: str) -> str:
    """The secret `name` of `owner` (a service or a server): URL-safe, 256 bits. The first call creates it."""
    file = folder(state, owner) / name
    if not file.exists():
        write_private(file, secrets.token_urlsafe(32))
    return file.read_text()


def key(state: State, owner: str, name: str) -> str:
    """Like `secret`, but 32 random bytes in standard base64: the form in which services read keys."""
    file = folder(state, owner) / name
    if not file.exists():
        write_private(file, base64.b64encode(secrets.token_bytes(32)).decode())
    return file.read_text()


def put(state: State, owner: str, name: str, value: str) -> None:
    """Stores a value that is derived from other settings. An unchanged file is not written again."""
    file = folder(state, owner) / name
    if not file.exists() or file.read_text() != value:
        write_private(file, value)


def sha256(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def folder(state: State, owner: str) -> Path:
    path = state.secrets / owner
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
