"""The SMTP receiver of the local stack. It stores every mail in a file, and sends none on.

    python -m waybill_dev.servers.mail_receiver --port 2525 --maildir FOLDER

The Message-ID determines the file's name. So a mail that is delivered again replaces its file, as in mailbox servers
that suppress duplicates (Dovecot, Cyrus): at-least-once delivery ends in one mail. The log has a `250` line for each
delivery.
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
    """Stores mails in `folder`. Files that are being written are in the folder `NAME.incoming` next to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = folder.with_name(f"{folder.name}.incoming")
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)
        folder.mkdir(exist_ok=True)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        content = envelope.original_content or b""
        name = await asyncio.to_thread(self.store, content)
        print(f"250 {name} to {len(envelope.rcpt_tos)} recipient(s), {len(content)} bytes", flush=True)
        return "250 2.0.0 stored"

    def store(self, content: bytes) -> str:
        """Writes the mail atomically and durably. Returns the file's name."""
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
    """The same name for the same Message-ID; a unique one for a mail without Message-ID."""
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
