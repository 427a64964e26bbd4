"""Settings of samples, in addition to those of every service."""

from typing import ClassVar

from pydantic import SecretStr

from common.settings import ServiceSettings


class Settings(ServiceSettings):
    service: ClassVar[str] = "samples"

    client_secret: SecretStr
    """Secret of the service's own OAuth client, which reads revocations from auth."""
