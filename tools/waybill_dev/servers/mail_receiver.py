"""The SMTP receiver of the local stack: every mail becomes one file, and nothing is ever sent on.

    python -m waybill_dev.servers.mail_receiver --port 2525 --maildir FOLDER

A file is named by the mail's Message-ID, so a mail that is delivered again under the same Message-ID replaces
the same file, as mailbox servers that suppress duplicates do (Dovecot, Cyrus). At-least-once delivery ends as
one mail here; count the `250` answers in the log to see how often it was handed in.
"""

import argparse
import asyncio
import email
import email.policy
import hashlib
import os
import shutil
import signal
import uuid
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from waybill_dev.base.state import LOOPBACK

SIZE_LIMIT = 10 * 1024 * 1024


class Maildir:
    """Keeps mails in `folder`, which holds nothing else: what is being written stays in a folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = folder.with_name(f"{folder.name}.incoming")
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)
        folder.mkdir(exist_ok=True)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        content = envelope.original_content or b""
        name = await asyncio.to_thread(self.keep, content)
        print(f"250 {name} to {len(envelope.rcpt_tos)} recipient(s), {len(content)} bytes", flush=True)
        return "250 2.0.0 kept"

    def keep(self, content: bytes) -> str:
        """Writes it whole and durably before the sender is told so; returns the file's name."""
        name = file_name(content)
        new = self._incoming / uuid.uuid4().hex
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return name


def file_name(content: bytes) -> str:
    """Stable for a Message-ID; unique for a mail without one."""
    message_id = email.message_from_bytes(content, policy=email.policy.compat32)["Message-ID"]
    identity = str(message_id).strip() if message_id else uuid.uuid4().hex
    return f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.eml"


async def serve(port: int, maildir: Path) -> None:
    handler = Maildir(maildir)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(handler, data_size_limit=SIZE_LIMIT, hostname="localhost", ident="Waybill local mail"),
        LOOPBACK,
        port,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print(f"listening on {LOOPBACK}:{port}", flush=True)
    async with server:
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m waybill_dev.servers.mail_receiver", description="receives mails into a folder"
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--maildir", type=Path, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.maildir))


if __name__ == "__main__":
    main()
