"""The spans of one order at a collector: one trace through all services, each hop with its parent.

It has its own stack, since the shared one exports no spans.
"""

import json
import os
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from common.testing.otlp_collector import Collector, ExportedSpan
from common.testing.plugin import eventually
from waybill_dev.testing import StackUnderTest, stack_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced_stack(collector: Collector) -> Iterator[StackUnderTest]:
    # A short delay, so that tests need not wait.
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    stack = StackUnderTest(stack_folder().with_name("traced"), variables)
    stack.dev("up", "--detach", "--owner", str(os.getpid()))
    yield stack
    stack.dev("down")


@pytest.fixture
def stack(traced_stack: StackUnderTest) -> StackUnderTest:
    return traced_stack


class Trace:
    """A trace that a client starts by sending `header` with its request."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self.id, self._span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.header = {"traceparent": f"00-{self.id}-{self._span_id}-01"}

    async def spans(self, count: int) -> list[ExportedSpan]:
        """Waits for `count` spans and returns them in the order of their start."""

        async def complete() -> bool:
            return len(self._collector.of_trace(self.id)) == count

        await eventually(complete, within=60)
        return self._collector.of_trace(self.id)

    async def chain(self, count: int) -> list[ExportedSpan]:
        """The same, if each span is the only child of the previous one, and the first is a child of the client's."""
        by_parent = {span.parent_id: span for span in await self.spans(count)}
        chain, parent = [], self._span_id
        while parent in by_parent:
            chain.append(by_parent[parent])
            parent = by_parent[parent].span_id
        assert len(chain) == count
        return chain


@pytest.fixture
def trace(collector: Collector) -> Trace:
    return Trace(collector)


def hops(chain: list[ExportedSpan]) -> list[tuple[str, str, str, str]]:
    return [(span.service, span.role, span.kind, span.name) for span in chain]


async def test_an_order_is_one_trace_from_the_request_to_the_mail(
    stack: StackUnderTest, collector: Collector, trace: Trace, customer: Any, mailbox: Any
) -> None:
    answer = await customer.order(**trace.header)
    await mailbox.wait_for(customer.email, answer.json()["id"])
    request, published, processed, delivered = chain = await trace.chain(4)
    event, queue = "orders.events:orders.order.placed.v1", "notifier.inbound"
    assert hops(chain) == [
        ("orders", "api", "server", "POST /orders"),
        ("orders", "relay", "producer", f"publish {event}"),
        ("notifier", "consume", "consumer", f"process {event}:{queue}"),
        ("notifier", "deliver", "client", "deliver mail"),
    ]
    assert processed.links == [(trace.id, published.span_id)]
    assert request.attributes["http.response.status_code"] == 201
    assert request.attributes["waybill.request_id"] == answer.headers["X-Request-ID"]
    assert published.attributes["messaging.message.id"] == processed.attributes["messaging.message.id"]
    assert delivered.attributes["waybill.outcome"] == "sent"
    assert request.started < published.started < published.ended
    assert published.started < processed.started < processed.ended < delivered.ended
    file = stack.folder / "order-trace.json"
    collector.write(trace.id, file)
    assert [span["name"] for span in json.loads(file.read_text())] == [span.name for span in chain]


async def test_a_sign_in_is_one_trace_through_auth_and_users(
    gateway: httpx.AsyncClient, trace: Trace, customer: Any
) -> None:
    form = {"grant_type": "password", "username": customer.email, "password": customer.password}
    (await gateway.post("/token", data=form, headers=trace.header)).raise_for_status()
    spans = await trace.spans(5)
    by_id = {span.span_id: span.name for span in spans}
    assert {(span.service, span.role, span.name): by_id.get(span.parent_id) for span in spans} == {
        ("auth", "api", "POST /token"): None,
        ("auth", "api", "POST"): "POST /token",
        ("users", "api", "POST /internal/credentials/verify"): "POST",
        ("auth", "relay", published := "publish auth.events:auth.session.started.v1"): "POST /token",
        ("notifier", "consume", "process auth.events:auth.session.started.v1:notifier.inbound"): published,
    }


async def test_a_password_reset_is_one_trace_to_its_mail_and_the_request_for_its_link(
    gateway: httpx.AsyncClient, trace: Trace, customer: Any, mailbox: Any
) -> None:
    # The deliverer's first secret link: fetching its own token is part of that trace.
    (await gateway.post("/email-verifications", headers=customer.bearer)).raise_for_status()
    await mailbox.wait_for(customer.email, "verify")
    await gateway.post("/password-resets", json={"email": customer.email}, headers=trace.header)
    await mailbox.wait_for(customer.email, "password")
    assert hops(await trace.chain(6)) == [
        ("users", "api", "server", "POST /password-resets"),
        ("users", "relay", "producer", "publish users.events:users.secret_link.requested.v1"),
        (
            "notifier",
            "consume",
            "consumer",
            "process users.events:users.secret_link.requested.v1:notifier.inbound",
        ),
        ("notifier", "deliver", "client", "deliver mail"),
        ("notifier", "deliver", "client", "POST"),
        ("users", "api", "server", "POST /internal/secret-links/{link_id}"),
    ]


async def test_log_lines_of_each_hop_have_the_trace_and_nothing_identifies_the_person(
    stack: StackUnderTest, collector: Collector, trace: Trace, customer: Any, mailbox: Any
) -> None:
    order = (await customer.order(**trace.header)).json()
    await mailbox.wait_for(customer.email, order["id"])
    await trace.chain(4)
    logs = {file.stem: file.read_text() for file in (stack.folder / "logs").glob("*.log")}
    lines = [
        json.loads(line)
        for name in ("orders-api", "notifier-deliver")
        for line in logs[name].splitlines()
        if line[:1] == "{"
    ]
    ours = [line for line in lines if line.get("trace_id") == trace.id]
    assert [line["event"] for line in ours] == ["request", "delivery attempted"]
    assert all(line["request_id"] for line in ours)
    for secret in (customer.email, customer.password, customer.tokens["access_token"]):
        assert secret not in str(collector.spans)
        assert not [name for name, text in logs.items() if secret in text]
