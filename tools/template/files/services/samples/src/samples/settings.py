"""Settings of samples, in addition to those of every service."""

from typing import ClassVar

from common.settings import ClientSettings


class Settings(ClientSettings):
    service: ClassVar[str] = "samples"
