"""SMTP as a server sees it: connections, encryption, signing in."""

import asyncio
import base64
import ipaddress
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr, ValidationError

from common.testing.plugin import eventually
from notifier.delivery.errors import ChannelUnavailable, Deferred, Refused
from notifier.mail.message import Mail
from notifier.mail.smtp import MailChannel
from notifier.settings import Settings

from .mailbox import Mailbox
from .world import holds

MAIL = Mail("no-reply@waybill.invalid", "ann@example.com", b"Subject: x\r\n\r\n.hidden\r\n")


def settings_for(mailbox: Mailbox, **fields: object) -> Settings:
    values: dict[str, object] = {
        "database_url": SecretStr("postgresql://nobody@db.invalid/x"),
        "amqp_url": SecretStr("amqp://nobody@broker.invalid/"),
        "client_secret": SecretStr("a secret"),
        "webhook_key": SecretStr(base64.b64encode(bytes(32)).decode()),
        "public_url": "http://gateway.test",
        "auth_url": "http://auth.invalid",
        "users_url": "http://users.invalid",
        "smtp_host": "127.0.0.1",
        "smtp_port": mailbox.port,
    }
    return Settings.model_validate(values | fields)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "mail.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
async def encrypted(certificate: Path) -> AsyncIterator[Mailbox]:
    """A server with STARTTLS that requires authentication."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    mailbox = Mailbox(tls_context=context, require_starttls=True, auth_required=True, authenticator=authenticate)
    await mailbox.open()
    yield mailbox
    await mailbox.close()


def authenticate(*arguments: object) -> AuthResult:
    login = arguments[-1]
    assert isinstance(login, LoginPassword)
    return AuthResult(success=login == LoginPassword(b"waybill", b"hunter2"))


async def test_mails_one_after_the_other_share_a_connection(mailbox: Mailbox) -> None:
    channel = MailChannel(settings_for(mailbox))
    for _ in range(5):
        await channel.send(MAIL)
    await channel.close()
    assert (len(mailbox.envelopes), mailbox.connections) == (5, 1)


async def test_concurrent_mails_have_a_connection_each(mailbox: Mailbox) -> None:
    channel = MailChannel(settings_for(mailbox))
    mailbox.accepts.clear()
    sending = [asyncio.create_task(channel.send(MAIL)) for _ in range(3)]
    await eventually(lambda: holds(mailbox.attempts == 3))
    mailbox.accepts.set()
    await asyncio.gather(*sending)
    await channel.close()
    assert (len(mailbox.envelopes), mailbox.connections) == (3, 3)


async def test_a_line_that_begins_with_a_dot_arrives_whole(mailbox: Mailbox) -> None:
    channel = MailChannel(settings_for(mailbox))
    await channel.send(MAIL)
    await channel.close()
    assert mailbox.envelopes[0].original_content == MAIL.content


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"mail_answers": ["451 Later"]}, Deferred),
        ({"mail_answers": ["550 Not you"]}, ChannelUnavailable),
        ({"mail_answers": ["421 Closing"]}, ChannelUnavailable),
        ({"rcpt_answers": ["450 Later"]}, Deferred),
        ({"rcpt_answers": ["550 Nobody"]}, Refused),
        ({"rcpt_answers": ["421 Closing"]}, ChannelUnavailable),
        ({"data_answers": ["452 Full"]}, Deferred),
        ({"data_answers": ["554 Spam"]}, Refused),
        ({"data_answers": ["421 Closing"]}, ChannelUnavailable),
    ],
)
async def test_an_answer_means_what_its_code_says_and_the_next_mail_goes_through(
    mailbox: Mailbox, answers: dict[str, list[str]], error: type[Exception]
) -> None:
    channel = MailChannel(settings_for(mailbox))
    for name, texts in answers.items():
        setattr(mailbox, name, list(texts))
    with pytest.raises(error) as raised:
        await channel.send(MAIL)
    assert str(raised.value) == next(iter(answers.values()))[0]
    await channel.send(MAIL)
    await channel.close()
    assert len(mailbox.envelopes) == 1


async def test_a_server_that_accepts_no_connection_is_unavailable(mailbox: Mailbox) -> None:
    await mailbox.close()
    with pytest.raises(ChannelUnavailable):
        await MailChannel(settings_for(mailbox)).send(MAIL)


async def test_a_mail_whose_connection_was_lost_midway_is_tried_again_later(mailbox: Mailbox) -> None:
    channel = MailChannel(settings_for(mailbox))
    mailbox.accepts.clear()
    sending = asyncio.create_task(channel.send(MAIL))
    await eventually(lambda: holds(mailbox.attempts == 1))
    mailbox.drop_connections()
    with pytest.raises(Deferred):
        await sending


async def test_the_servers_response_is_recorded_as_one_printable_line(mailbox: Mailbox) -> None:
    mailbox.rcpt_answers = ["550-No\r\n550 such \x00\x1b[31muser \udcff"]
    with pytest.raises(Refused) as raised:
        await MailChannel(settings_for(mailbox)).send(MAIL)
    assert str(raised.value).isprintable()


async def test_a_mail_is_sent_over_starttls_to_a_server_with_a_valid_certificate(
    encrypted: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    settings = settings_for(encrypted, smtp_tls="starttls", smtp_username="waybill", smtp_password=SecretStr("hunter2"))
    channel = MailChannel(settings)
    await channel.send(MAIL)
    await channel.close()
    assert len(encrypted.envelopes) == 1


async def test_nothing_is_sent_to_a_server_with_an_unknown_certificate(encrypted: Mailbox) -> None:
    with pytest.raises(ChannelUnavailable):
        await MailChannel(settings_for(encrypted, smtp_tls="starttls")).send(MAIL)
    assert encrypted.envelopes == []


async def test_nothing_is_sent_unencrypted_if_encryption_is_required(mailbox: Mailbox) -> None:
    with pytest.raises(ChannelUnavailable):
        await MailChannel(settings_for(mailbox, smtp_tls="starttls")).send(MAIL)
    assert mailbox.envelopes == []


def test_a_password_is_never_sent_unencrypted(mailbox: Mailbox) -> None:
    with pytest.raises(ValidationError, match="smtp_tls"):
        settings_for(mailbox, smtp_username="waybill", smtp_password=SecretStr("hunter2"))


@pytest.mark.parametrize("sender", ["", "Waybill", "Waybill <no-reply>", "@waybill.invalid"])
def test_an_invalid_sender_prevents_the_start(mailbox: Mailbox, sender: str) -> None:
    with pytest.raises(ValidationError, match="mail_from"):
        settings_for(mailbox, mail_from=sender)
