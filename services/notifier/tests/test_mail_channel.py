"""SMTP as a server sees it: connections, encryption, signing in."""

import asyncio
import base64
import ipaddress
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
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


REFUSALS: list[tuple[str, type[Exception]]] = [
    # What the address is to blame for (RFC 3463 §3.2, §3.3).
    ("550 5.1.1 No such user", Refused),
    ("550 5.1.2 Bad destination system", Refused),
    ("553 5.1.3 Bad address syntax", Refused),
    ("550 5.1.6 Mailbox has moved", Refused),
    ("556 5.1.10 Recipient address has null MX", Refused),
    ("550 5.2.1 The account that you tried to reach is disabled", Refused),
    ("550 5.2.1 Disabled, and over quota", Refused),
    ("552 5.2.3 Message too long for this mailbox", Refused),
    ("550 5.1.1 Recipient unknown in relay recipient table", Refused),
    ("550 5.7.17 Mailbox owner has changed", Refused),
    ("550 Nobody", Refused),
    ("554 Spam", Refused),
    ("554 5.6.0 Message contains bare line feeds", Refused),
    ("552 5.3.4 Message too big", Refused),
    # The mailbox, for a while.
    ("450 Mailbox busy", Deferred),
    ("450 4.2.0 Greylisted", Deferred),
    ("452 4.2.2 Over quota", Deferred),
    ("450 4.1.1 Unverified recipient", Deferred),
    ("552 5.2.2 Mailbox is over its quota", Deferred),
    ("552 5.2.2 The account that you tried to reach is full", Deferred),
    ("550 5.2.0 Quota exceeded", Deferred),
    # What we are to blame for, or the server.
    ("530 Authentication required", ChannelUnavailable),
    ("530 5.7.0 Must issue a STARTTLS command first", ChannelUnavailable),
    ("535 5.7.8 Credentials invalid", ChannelUnavailable),
    ("550 5.7.1 Authentication required", ChannelUnavailable),
    ("554 5.7.1 Relay access denied", ChannelUnavailable),
    ("554 Relay access denied", ChannelUnavailable),
    ("550 relaying denied", ChannelUnavailable),
    ("550 5.7.26 Unauthenticated email is not accepted", ChannelUnavailable),
    ("550 5.4.5 Daily user sending limit exceeded", ChannelUnavailable),
    ("550 Quota exceeded", ChannelUnavailable),
    ("454 Throttling failure: Daily message quota exceeded", ChannelUnavailable),
    ("554 Sending paused for this account", ChannelUnavailable),
    ("554 Message rejected: Email address is not verified", ChannelUnavailable),
    ("550 5.1.8 Sender address rejected: Domain not found", ChannelUnavailable),
    ("550 5.3.5 System incorrectly configured", ChannelUnavailable),
    ("421 Closing", ChannelUnavailable),
    ("451 4.3.0 Queue file write error", ChannelUnavailable),
    ("452 Full", ChannelUnavailable),
    ("451 4.4.2 Bad connection", ChannelUnavailable),
    ("452 4.5.3 Too many messages on this connection", ChannelUnavailable),
    ("450 4.7.1 Client host rejected", ChannelUnavailable),
]


async def test_a_refusal_means_what_its_enhanced_code_says_and_the_next_mail_goes_through(mailbox: Mailbox) -> None:
    channel = MailChannel(settings_for(mailbox))
    for number, (stage, (answer, error)) in enumerate(product(("rcpt", "data"), REFUSALS), 1):
        setattr(mailbox, f"{stage}_answers", [answer] * 2)  # a reused connection is tried again on a new one
        with pytest.raises(error) as raised:
            await channel.send(MAIL)
        assert str(raised.value) == answer
        setattr(mailbox, f"{stage}_answers", [])
        await channel.send(MAIL)
        assert len(mailbox.envelopes) == number
    await channel.close()


@pytest.mark.parametrize("answer", ["451 Later", "550 Not you", "550 5.1.1 No such user", "421 Closing"])
async def test_a_refusal_of_our_sender_is_about_us_whatever_its_code(mailbox: Mailbox, answer: str) -> None:
    channel = MailChannel(settings_for(mailbox))
    mailbox.mail_answers = [answer]
    with pytest.raises(ChannelUnavailable):
        await channel.send(MAIL)
    await channel.close()


async def test_a_server_that_takes_a_few_mails_on_a_connection_gets_the_next_on_another(mailbox: Mailbox) -> None:
    channel = MailChannel(settings_for(mailbox))
    for _ in range(3):
        await channel.send(MAIL)
        mailbox.data_answers = ["452 4.5.3 Too many messages on this connection"]
    await channel.close()
    assert (len(mailbox.envelopes), mailbox.connections) == (3, 3)


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
