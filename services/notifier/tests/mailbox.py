"""An SMTP server that receives notifier's mails."""

import asyncio
import email.policy
from collections import defaultdict
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


class Mailbox:
    """An SMTP server that stores the mails it accepts and gives scripted responses."""

    def __init__(self, **options: Any) -> None:
        self._options = {"hostname": "mail.test", "enable_SMTPUTF8": False} | options
        self.envelopes: list[Envelope] = []
        self.attempts = 0
        self.connections = 0
        self.mail_answers: list[str] = []
        self.rcpt_answers: list[str] = []
        self.data_answers: list[str] = []
        self.accepts = asyncio.Event()
        self.accepts.set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._transports: list[asyncio.Transport] = []

    @property
    def mails(self) -> list[EmailMessage]:
        parser = BytesParser(EmailMessage, policy=email.policy.default)
        return [parser.parsebytes(envelope.original_content or b"") for envelope in self.envelopes]

    def texts(self) -> dict[str, list[str]]:
        """The received plain texts by recipient."""
        texts: dict[str, list[str]] = defaultdict(list)
        for mail, envelope in zip(self.mails, self.envelopes, strict=True):
            for address in envelope.rcpt_tos:
                texts[address].append(part_of(mail, "plain"))
        return texts

    def to(self, address: str) -> list[str]:
        return self.texts()[address]

    async def open(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._protocol, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends like a server that dies: drops its connections and accepts no new ones."""
        if self._server is not None:
            self._server.close()
            self.drop_connections()
            await self._server.wait_closed()
            self._server = None

    def drop_connections(self) -> None:
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    def _protocol(self) -> SMTP:
        return _Protocol(self, loop=asyncio.get_running_loop(), **self._options)

    def connected(self, transport: asyncio.Transport) -> None:
        self.connections += 1
        self._transports.append(transport)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        answer = self.mail_answers.pop(0) if self.mail_answers else "250 OK"
        if answer.startswith("250"):
            envelope.mail_from = address
        return answer

    async def handle_RCPT(  # noqa: N802
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        self.attempts += 1
        answer = self.rcpt_answers.pop(0) if self.rcpt_answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        await self.accepts.wait()
        answer = self.data_answers.pop(0) if self.data_answers else "250 Accepted"
        if answer.startswith("250"):
            self.envelopes.append(envelope)
        return answer


def part_of(mail: EmailMessage, subtype: str) -> str:
    """The text or the HTML of a mail."""
    part = mail.get_body((subtype,))
    assert part is not None
    content: str = part.get_content()
    return content


class _Protocol(SMTP):
    def __init__(self, mailbox: Mailbox, **options: Any) -> None:
        super().__init__(mailbox, **options)
        self._mailbox = mailbox

    def connection_made(self, transport: Any) -> None:
        self._mailbox.connected(transport)
        super().connection_made(transport)
