"""A webhook's name is resolved once, checked, and connected to at that very address."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from notifier.delivery.errors import Deferred
from notifier.webhooks.channel import WebhookChannel
from notifier.webhooks.destinations import BadDestination, Destinations

from .name_server import naming
from .receiver import receiving


async def test_a_name_with_one_address_that_is_not_public_is_refused() -> None:
    async with naming(hooks=[["8.8.8.8", "127.0.0.1"]]) as (_, resolver):
        with pytest.raises(BadDestination):
            await Destinations((), resolver=resolver).validate("https://hooks.example/")


async def test_a_name_that_resolves_differently_the_second_time_is_refused() -> None:
    """Public at registration, internal at delivery. Each connection resolves the name once."""
    async with receiving() as receiver, naming(hooks=[["8.8.8.8"], ["127.0.0.1"]]) as (names, resolver):
        destinations = Destinations((), resolver=resolver)
        url = str(await destinations.validate(f"https://hooks.example:{receiver.port}/"))
        channel = WebhookChannel(destinations, connections=1)
        with pytest.raises(Deferred, match="not public"):
            await channel.send(url, {}, b"{}")
        assert (receiver.connections, names.lookups) == (0, 2)
        await channel.close()


@pytest.fixture
def certified_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Creates a server's TLS context for a name, with a certificate that our side trusts."""

    def context(name: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        file = tmp_path / "certificate.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate(name, key).public_bytes(serialization.Encoding.PEM)
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(file)
        return server_context

    return context


def certificate(name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


@pytest.mark.parametrize(("certified", "is_accepted"), [("hooks.example", True), ("other.example", False)])
async def test_the_address_is_pinned_and_the_certificate_is_still_checked_for_the_name(
    certified_for: Any, certified: str, *, is_accepted: bool
) -> None:
    async with receiving(certified_for(certified)) as receiver, naming(hooks=[["127.0.0.1"]]) as (_, resolver):
        destinations = Destinations({("hooks.example", receiver.port)}, resolver=resolver)
        channel = WebhookChannel(destinations, connections=1)
        url = f"https://hooks.example:{receiver.port}/x"
        if is_accepted:
            await channel.send(url, {"webhook-id": "1"}, b"{}")
            assert [request.headers["host"] for request in receiver.requests] == [f"hooks.example:{receiver.port}"]
        else:
            with pytest.raises(Deferred, match="CERTIFICATE_VERIFY_FAILED"):
                await channel.send(url, {"webhook-id": "1"}, b"{}")
            assert receiver.requests == []
        await channel.close()


async def test_the_next_address_is_tried_if_one_accepts_no_connection() -> None:
    unused = str(ipaddress.ip_address("127.0.0.1") + 1)
    async with receiving() as receiver, naming(hooks=[[unused, "127.0.0.1"]]) as (_, resolver):
        destinations = Destinations({("hooks.example", receiver.port)}, resolver=resolver)
        channel = WebhookChannel(destinations, connections=1)
        await channel.send(f"http://hooks.example:{receiver.port}/", {"webhook-id": "1"}, b"{}")
        assert len(receiver.requests) == 1
        await channel.close()
