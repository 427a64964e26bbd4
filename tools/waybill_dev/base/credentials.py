"""Passwords and keys of the local stack: made once at random, kept as files that only the owner can read."""

import base64
import hashlib
import secrets
from pathlib import Path

from waybill_dev.base.state import State, write_private


def secret(state: State, owner: str, name: str) -> str:
    """The secret `name` of `owner` (a service or a server); made at the first call. URL-safe, 256 bit."""
    file = folder(state, owner) / name
    if not file.exists():
        write_private(file, secrets.token_urlsafe(32))
    return file.read_text()


def key(state: State, owner: str, name: str) -> str:
    """Like `secret`, but 32 random bytes in standard base64, as the services read keys."""
    file = folder(state, owner) / name
    if not file.exists():
        write_private(file, base64.b64encode(secrets.token_bytes(32)).decode())
    return file.read_text()


def put(state: State, owner: str, name: str, value: str) -> None:
    file = folder(state, owner) / name
    if not file.exists() or file.read_text() != value:
        write_private(file, value)


def sha256(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def folder(state: State, owner: str) -> Path:
    path = state.secrets / owner
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
