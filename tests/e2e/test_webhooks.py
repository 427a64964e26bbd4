"""Webhooks through the gateway, to an HTTP receiver."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from common.testing.plugin import eventually
from waybill_dev.testing import webhook_port

Received = list[tuple[dict[str, str], bytes]]
PLACED = "orders.order.placed.v1"


@pytest.fixture
def received(stack: Any) -> Iterator[Received]:
    """The requests to a server at the one address that the stack allows."""
    requests: Received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", webhook_port()), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield requests
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_placed_order_and_a_test_reach_the_receiver_signed(
    stack: Any, customer: Any, sign_up: Any, received: Received
) -> None:
    body = {"url": f"http://127.0.0.1:{webhook_port()}/hook", "event_types": [PLACED]}
    answer = await customer.client.post("/webhooks", json=body, headers=customer.bearer)
    assert answer.status_code == 201, answer.text
    webhook = answer.json()
    tested = await customer.client.post(f"/webhooks/{webhook['id']}/test", headers=customer.bearer)
    assert tested.status_code == 202
    order = (await customer.order()).json()
    await (await sign_up()).order()

    async def both() -> bool:
        return len(received) == 2

    await eventually(both, within=20)
    events = {headers["webhook-id"]: Webhook(webhook["secret"]).verify(body, headers) for headers, body in received}
    assert {event["type"] for event in events.values()} == {PLACED, "notifier.webhook.test.v1"}
    (placed,) = [event["data"] for event in events.values() if event["type"] == PLACED]
    assert (placed["order_id"], placed["lines"], placed["total"]) == (order["id"], order["lines"], order["total"])

    async def shown() -> bool:
        listed = (await customer.get(f"/webhooks/{webhook['id']}/deliveries")).json()["items"]
        sent = {item["event_id"] for item in listed if item["state"] == "sent"}
        return sent == set(events) and f"webhook of {PLACED} sent" in stack.dev("trace", order["id"])

    await eventually(shown, within=20)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "https://localhost/", "https://169.254.169.254/"])
async def test_a_url_into_our_own_network_is_refused(customer: Any, url: str) -> None:
    body = {"url": url, "event_types": [PLACED]}
    answer = await customer.client.post("/webhooks", json=body, headers=customer.bearer)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_webhook_url")
