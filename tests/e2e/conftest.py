import email
import email.policy
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aio_pika
import httpx
import pytest

from common.testing.plugin import eventually
from waybill_dev.testing import StackUnderTest

from . import published

SKU = "E2E-LAMP"
PRICE = {"amount": 4900, "currency": "EUR"}


Report = Callable[[object], None]


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Adds a line to the summary at the end of the run, from any worker."""

    def add(counted: object) -> None:
        request.node.user_properties.append(("counted", f"{request.node.name}: {counted}"))

    return add


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    counted = [value for report in reports if report.when == "call" for _, value in report.user_properties]
    if counted:
        terminalreporter.section("counted")
        for line in counted:
            terminalreporter.write_line(line)


@dataclass
class Person:
    """A person who is signed in at the gateway."""

    client: httpx.AsyncClient
    id: str
    email: str
    password: str
    tokens: dict[str, Any] = field(repr=False)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens['access_token']}"}

    async def order(self, quantity: int = 1, note: str | None = None, **headers: str) -> httpx.Response:
        body = {"lines": [{"sku": SKU, "quantity": quantity}], "note": note}
        return await self.client.post("/orders", json=body, headers={**self.bearer, **headers})

    async def get(self, path: str) -> httpx.Response:
        return await self.client.get(path, headers=self.bearer)


def plain_text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    text: str = body.get_content()
    return text


class Mailbox:
    """The mails that the SMTP receiver has received."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def to(self, address: str) -> list[EmailMessage]:
        return [mail for mail in self._naming(address) if mail["To"] and address in str(mail["To"])]

    def bodies(self, address: str) -> list[str]:
        return [plain_text(mail) for mail in self.to(address)]

    async def wait_for(self, address: str, text: str, *, within: float = 20.0) -> EmailMessage:
        async def arrived() -> EmailMessage | None:
            return next((mail for mail in self.to(address) if text in plain_text(mail)), None)

        mail = await eventually(arrived, within=within)
        assert mail is not None
        return mail

    def _naming(self, address: str) -> list[EmailMessage]:
        """The mails that contain the address. The others are not parsed: a run of all tests receives thousands."""
        files = (path for path in self._folder.iterdir() if path.is_file() and not path.name.startswith("."))
        contents = [content for file in files if address.encode() in (content := file.read_bytes())]
        return [email.message_from_bytes(content, policy=email.policy.default) for content in contents]


@pytest.fixture(autouse=True)
async def _messages_match_contracts(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Each message that a test of the whole system causes must match `contracts/`."""
    if "stack" not in request.fixturenames:
        yield
        return
    stack: StackUnderTest = request.getfixturevalue("stack")  # waits for this test's turn
    amqp_url = stack.addresses["broker"]["amqp_url"]
    await published.record(amqp_url)
    yield
    count, complaints = await published.complaints(amqp_url)
    assert complaints == [], f"of {count} messages"


@pytest.fixture
async def gateway(stack: StackUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=stack.addresses["gateway"], timeout=30, limits=limits) as client:

        async def all_respond() -> bool:
            """The previous test may have stopped or killed a service."""
            answers = [await client.get(path) for path in ("/sessions", "/me", "/orders", "/notifications")]
            return all(answer.status_code == 401 for answer in answers)

        await eventually(all_respond, within=30)
        yield client


@pytest.fixture
def mailbox(stack: StackUnderTest) -> Mailbox:
    return Mailbox(Path(stack.addresses["mail"]["maildir"]))


async def sign_in(client: httpx.AsyncClient, address: str, password: str) -> dict[str, Any]:
    answer = await client.post("/token", data={"grant_type": "password", "username": address, "password": password})
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


SignUp = Callable[..., Awaitable[Person]]


@pytest.fixture
def sign_up(gateway: httpx.AsyncClient) -> SignUp:
    async def make(*, send_welcome: bool = False) -> Person:
        address, password = f"{secrets.token_hex(8)}@example.com", secrets.token_urlsafe(18)
        body = {"name": "Ada Lovelace", "email": address, "password": password}
        answer = await gateway.post("/users", params={"send_welcome": send_welcome}, json=body)
        assert answer.status_code == 201, answer.text
        tokens = await sign_in(gateway, address, password)
        return Person(gateway, answer.json()["id"], address, password, tokens)

    return make


@pytest.fixture
async def admin(stack: StackUnderTest, gateway: httpx.AsyncClient) -> Person:
    account = stack.addresses["admin"]
    tokens = await sign_in(gateway, account["email"], account["password"])
    me = await gateway.get("/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    return Person(gateway, me.json()["id"], account["email"], account["password"], tokens)


@pytest.fixture
async def customer(sign_up: SignUp, product: None) -> Person:
    return await sign_up()


@pytest.fixture
async def product(admin: Person) -> None:
    body = {"name": "Lamp", "price": PRICE, "active": True}
    answer = await admin.client.put(f"/products/{SKU}", json=body, headers=admin.bearer)
    assert answer.status_code in {200, 201}, answer.text


@dataclass
class Team:
    name: str
    amqp_url: str
    administrator: str


@pytest.fixture
async def team(stack: StackUnderTest) -> AsyncIterator[Team]:
    name = f"team-{secrets.token_hex(4)}"
    administrator = stack.addresses["broker"]["amqp_url"]
    yield Team(name, stack.dev("subscriber", name).strip(), administrator)
    async with await aio_pika.connect(administrator) as connection:
        channel = await connection.channel()
        for queue in ("inbound", "parked"):
            await channel.queue_delete(f"{name}.{queue}")
        await channel.exchange_delete(f"{name}.dead")
