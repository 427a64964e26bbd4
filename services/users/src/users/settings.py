"""Settings of users, in addition to those that every service has."""

from typing import ClassVar

from pydantic import Field, SecretStr, field_validator

from common.settings import ClientSettings, key_bytes


class Settings(ClientSettings):
    service: ClassVar[str] = "users"

    key_encryption_key: SecretStr
    """32 bytes in base64: encrypts the secrets of authenticator apps in the database. `authenticators rewrap` changes
    it.
    """
    password_threads: int | None = Field(default=None, ge=1, le=256)
    """Number of threads that hash passwords; one hash takes about 25 ms of a core and 19 MiB. The default is one thread
    per core. Set it in a container with a CPU quota, which sees all cores of its host.
    """
    password_queue: int = Field(default=32, ge=0, le=10_000)
    """Number of sign-ins that may wait for a hashing thread, and as many sign-ups and changes of passwords; further
    ones get 503 at once. With the default, the last sign-in in the queue waits a second on one core.
    """
    login_patience: float = Field(default=3.0, gt=0, le=60)
    """Seconds that a request waits while others of the same account from the same network sign in, or others of the
    same network use half of the queue; then it gets 503. Keep it below auth's timeout for calls to users, or the
    sign-in fails there first.
    """
    addresses_per_network: int = Field(default=1000, ge=1, le=1_000_000)
    """Number of e-mail addresses that one network (an IPv4 address or an IPv6 /64) may sign up or change to, or request
    a reset or verification mail for, at once, and again in every ten minutes; further ones get 429. An IPv6 /48 may use
    four times as many. This also limits how fast a stranger can find out which addresses are taken. The default lets an
    office or a school behind one address sign up in a morning.
    """

    @field_validator("key_encryption_key")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        if len(key_bytes(value)) != 32:
            raise ValueError("must be 32 bytes in base64")
        return value

    @property
    def key_encryption_bytes(self) -> bytes:
        return key_bytes(self.key_encryption_key)
