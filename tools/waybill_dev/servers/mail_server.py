"""The SMTP receiver (`waybill_dev.servers.mail_receiver`) as a program of the stack."""

import sys
from pathlib import Path

from waybill_dev.base.probes import listens
from waybill_dev.base.program import Program, base_environment
from waybill_dev.base.state import LOOPBACK, State


class MailServer:
    def __init__(self, state: State) -> None:
        self._state = state
        self.port = state.port("smtp")

    @property
    def maildir(self) -> Path:
        """The folder with one file per mail."""
        return self._state.folder / "mail" / "received"

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def program(self) -> Program:
        async def ready() -> bool:
            return await listens(self.port)

        return Program(
            name="mail",
            command=(
                sys.executable,
                "-m",
                "waybill_dev.servers.mail_receiver",
                "--port",
                str(self.port),
                "--maildir",
                str(self.maildir),
            ),
            log=self._state.logs / "mail.log",
            ready=ready,
            environment={**base_environment(), "PYTHONUNBUFFERED": "1"},
            stop_seconds=10,
        )
