"""The made-up service's commands as a process: `python shop_process.py events …`."""

from typing import ClassVar

from common.cli.roles import RELAY, command_line
from common.settings import ServiceSettings


class Settings(ServiceSettings):
    service: ClassVar[str] = "shop"


if __name__ == "__main__":
    command_line("shop", settings="shop_process:Settings", roles={"relay": RELAY})()
