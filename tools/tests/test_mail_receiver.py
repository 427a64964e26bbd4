import smtplib
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from waybill_dev.base.state import LOOPBACK, State
from waybill_dev.servers.mail_server import MailServer
from waybill_dev.supervision.process import Process


@pytest.fixture
async def mail(state: State) -> AsyncIterator[MailServer]:
    server = MailServer(state)
    process = Process(server.program(), role="server")
    process.start()
    await process.until_running()
    yield server
    await process.stop()


def message(text: str, *, message_id: str | None = None) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", "ada@example.com", "Your order"
    if message_id is not None:
        mail["Message-ID"] = message_id
    mail.set_content(text)
    return mail


def send(server: MailServer, *messages: EmailMessage) -> None:
    with smtplib.SMTP(LOOPBACK, server.port, timeout=10) as client:
        for each in messages:
            client.send_message(each)


def received(server: MailServer) -> list[Path]:
    return sorted(server.maildir.iterdir())


async def test_every_mail_becomes_one_file(mail: MailServer) -> None:
    send(mail, message("one", message_id="<1@shop>"), message("two", message_id="<2@shop>"))
    assert len(received(mail)) == 2
    assert {b"one" in file.read_bytes() for file in received(mail)} == {True, False}


async def test_a_mail_delivered_again_under_its_message_id_is_still_one_file(mail: MailServer) -> None:
    send(mail, message("first", message_id="<1@shop>"))
    send(mail, message("again", message_id="<1@shop>"))
    (file,) = received(mail)
    assert b"again" in file.read_bytes()


async def test_mails_without_a_message_id_get_a_file_each(mail: MailServer) -> None:
    send(mail, message("one"), message("one"))
    assert len(received(mail)) == 2


async def test_a_message_id_cannot_name_a_file_outside_the_folder(mail: MailServer) -> None:
    send(mail, message("x", message_id="<../../../escaped@shop>"))
    (file,) = received(mail)
    assert file.parent == mail.maildir
    assert not list(mail.maildir.parent.rglob("*escaped*"))


async def test_a_mail_above_the_limit_is_refused(mail: MailServer) -> None:
    with pytest.raises(smtplib.SMTPException):
        send(mail, message("x" * 11_000_000))
    assert received(mail) == []
