"""What the simulated services are: their settings, and the events that one of them sends to the other."""

from typing import ClassVar, Final

from pydantic import BaseModel, SecretStr

from common.settings import ServiceSettings

PARTITIONS: Final = (0, 1)
KIND: Final = "shop.item"
CHANGED: Final = f"{KIND}.changed.v1"
NOTED: Final = f"{KIND}.noted.v1"
"""A type without a handler."""


class Shop(ServiceSettings):
    service: ClassVar[str] = "shop"


class Mail(ServiceSettings):
    service: ClassVar[str] = "mail"


def _settings(kind: type[ServiceSettings], workers: int) -> ServiceSettings:
    return kind(
        database_url=SecretStr("postgresql://simulated/simulated"),
        amqp_url=SecretStr("amqp://simulated/"),
        public_url="http://gateway.invalid",
        auth_url="http://auth.invalid",
        retry_delays=(0.3, 0.6, 1.0),
        relay_partitions=workers,
    )


SHOPS: Final = [_settings(Shop, workers) for workers in (1, 2)]
MAIL: Final = _settings(Mail, 1)


class Changed(BaseModel):
    failures: int
    """How often the handler fails on it. Negative: until the defect is mended."""
