"""The made-up service's commands as a process: `python shop_process.py events …`."""

from pathlib import Path
from typing import ClassVar

from common.cli.roles import RELAY, command_line
from common.settings import ServiceSettings


class Settings(ServiceSettings):
    service: ClassVar[str] = "shop"


if __name__ == "__main__":
    folder = Path(__file__).parents[1] / "migrations"
    command_line("shop", settings="shop_process:Settings", roles={"relay": RELAY}, migrations=folder)()
