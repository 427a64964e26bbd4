"""Settings of users, beside those that every service has."""

from typing import ClassVar

from pydantic import Field, SecretStr

from common.settings import ServiceSettings


class Settings(ServiceSettings):
    service: ClassVar[str] = "users"

    client_secret: SecretStr
    """Of users' own OAuth client: it reads revocations at auth."""
    password_threads: int | None = Field(default=None, ge=1, le=256)
    """Threads that hash passwords; as many as cores unless set (a container with a CPU quota sees the host's)."""
    password_queue: int = Field(default=32, ge=0, le=10_000)
    """Requests that may wait for a hashing thread before others are answered 503."""
    login_patience: float = Field(default=3.0, gt=0, le=60)
    """Seconds that one of many sign-ins at once, of one account from one network, waits for its turn; below what auth
    waits for the answer."""
