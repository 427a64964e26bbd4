"""A relay process: `python relay_process.py DATABASE_URL AMQP_URL WORKERS`."""

import asyncio
import signal
import sys
from typing import ClassVar

from pydantic import SecretStr

from common.messaging.relay import relay
from common.runtime.health import Health
from common.settings import ServiceSettings


class ShopSettings(ServiceSettings):
    service: ClassVar[str] = "shop"


async def main(database_url: str, amqp_url: str, workers: str) -> None:
    settings = ShopSettings(
        database_url=SecretStr(database_url),
        amqp_url=SecretStr(amqp_url),
        public_url="http://gateway.invalid",
        auth_url="http://auth.invalid",
        relay_partitions=int(workers),
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await relay(settings, Health(), stop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
