"""Settings common to every service, read once at the start of a process and passed down.

Plain values come from the environment (`WAYBILL_*`). Secrets have no default. They come from files in the folder that
`WAYBILL_SECRETS_DIR` names (default `/run/secrets`); a file has its variable's name in lower case.

A field's docstring is its description in `docs/settings.md`.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def resource(service: str) -> str:
    """The absolute URI that names a service in a token's `aud` (RFC 8707 §2)."""
    return f"https://waybill.invalid/{service}"


def key_bytes(secret: SecretStr) -> bytes:
    """The bytes of a key in base64, of either alphabet (RFC 4648 §4 and §5). Empty if it is not base64."""
    text = secret.get_secret_value().strip()
    try:
        return base64.b64decode(text, altchars=None if {"-", "_"}.isdisjoint(text) else b"-_")
    except binascii.Error:
        return b""


class DatabaseSettings(BaseSettings):
    """What `migrate` needs. It needs nothing else, so that other settings change without another migration."""

    model_config = SettingsConfigDict(env_prefix="WAYBILL_", frozen=True, extra="ignore")

    database_url: SecretStr
    """The service's own database: `postgresql://user:password@host:port/name`."""
    log_level: str = "info"
    """The lowest level that is logged: `debug`, `info`, `warning` or `error`."""

    @classmethod
    def load(cls) -> Self:
        folder = Path(os.environ.get("WAYBILL_SECRETS_DIR", "/run/secrets"))
        return cls(_secrets_dir=folder if folder.is_dir() else None)


class ServiceSettings(DatabaseSettings):
    service: ClassVar[str]
    streamed: ClassVar[str | None] = None
    """Pattern of the event types that outside readers find in a stream, too: those without personal data."""

    database_pooler: str | None = Field(default=None, pattern=r"^[^\s:/@]+:\d{1,5}$")
    """`host:port` of a PgBouncer in transaction mode before the database, for all but LISTEN and migrations."""
    amqp_url: SecretStr
    """The service's own user at RabbitMQ: `amqp://user:password@host:port/vhost`."""
    public_url: str
    """The gateway's URL, which clients use. It is also the `iss` of every token."""
    auth_url: str
    """Auth's internal URL, for signing keys, service tokens and revocations."""
    cors_origins: list[str] = []
    """Origins of web pages that may call the API from a browser, such as `["https://shop.example"]`."""
    password_grant: Literal["on", "off"] = "on"  # noqa: S105 - a switch
    """Whether first-party clients may exchange a password for tokens (RFC 6749 §4.3). The sign-in page works anyway.
    Auth enforces it; the other services' documentation pages offer what is on."""
    database_pool_size: int = Field(default=5, ge=1, le=100)
    """PostgreSQL connections that one process keeps open. Connections of all processes share the server's limit."""
    database_pool_overflow: int = Field(default=0, ge=0, le=100)
    """PostgreSQL connections that one process may open beyond the pool, and closes after use. 0 bounds the total."""
    database_timeout: float = Field(default=6.0, gt=0, le=60)
    """Seconds to wait for a connection, and again for an answer. A request fails with 503 after at most twice this."""
    drain_seconds: float = Field(default=2.0, ge=0, le=30)
    """Seconds that a stopping API still serves while it reports not ready, so that load balancers notice first."""
    outbox_retention_days: int = Field(default=30, ge=1, le=3650)
    """Days that published events can be replayed from the event log. Processed ones stay in the inbox a week longer."""
    relay_partitions: int = Field(default=1, ge=1, le=64)
    """Workers of one relay process, which publish partitions of the outbox concurrently. More than 8 work as 8."""
    retry_delays: Annotated[tuple[float, ...], NoDecode] = (5.0, 60.0, 600.0)
    """Seconds before each of a failed message's three retries. The queues keep their names (`5s`, `1m`, `10m`)."""

    queue_partitions: int = Field(default=1, ge=1, le=64)
    """Inbound queues of the consumer. With several, each is received by one process at a time."""
    history: Path | None = None
    """Folder into which each process writes the steps of its events, for `./dev history`. Meant for tests: the files
    grow without a limit."""

    @field_validator("retry_delays", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return tuple(float(part) for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("retry_delays")
    @classmethod
    def _three_tiers(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) != 3 or not all(0 < delay <= 86400 for delay in value):
            raise ValueError("three delays in seconds, each above 0 and at most a day, as in 5,60,600")
        return value

    @field_validator("public_url", "auth_url", "users_url", mode="after", check_fields=False)
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @property
    def has_password_grant(self) -> bool:
        return self.password_grant == "on"  # noqa: S105 - a switch

    @property
    def audience(self) -> str:
        return resource(self.service)


class ClientSettings(ServiceSettings):
    """Settings of a service that is an OAuth client of auth: of every service but auth."""

    client_secret: SecretStr
    """Secret of the service's own OAuth client, with which it calls other services, such as auth for revocations."""
