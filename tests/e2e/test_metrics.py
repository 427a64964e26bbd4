"""The metrics of dashboards and alerts change when something happens."""

import json
import re
import time
from typing import Any

import httpx
import yaml

from common.testing.plugin import eventually
from waybill_dev.testing import StackUnderTest

# Process and series, one for each hop of an order; the last is of a revocation.
GROWING = [
    ("orders-api", 'http_server_request_duration_seconds_count{method="POST",route="/orders",status="2xx"}'),
    ("orders-relay", "waybill_publish_confirm_seconds_count"),
    ("orders-relay", "waybill_relay_published_total"),
    ("notifier-consume", 'waybill_consumer_messages_total{outcome="processed"}'),
    ("notifier-consume", "waybill_consumer_lag_seconds_count"),
    ("notifier-deliver", 'waybill_deliveries_total{channel="mail",outcome="sent"}'),
    ("notifier-deliver", 'waybill_delivery_delay_seconds_count{channel="mail"}'),
    ("orders-api", "waybill_revocation_lag_seconds_count"),
]
# Exist before the first failure, so that its increase is visible.
ZERO_AT_FIRST = [
    ("orders-relay", "waybill_outbox_pending"),
    ("orders-relay", "waybill_outbox_oldest_age_seconds"),
    ("notifier-consume", "waybill_parked_messages"),
    ("notifier-consume", 'waybill_consumer_messages_total{outcome="duplicate"}'),
    ("notifier-consume", 'waybill_consumer_messages_total{outcome="parked"}'),
    *(("notifier-consume", f'waybill_consumer_retries_total{{tier="{tier}"}}') for tier in ("5s", "1m", "10m")),
    ("notifier-deliver", 'waybill_deliveries_total{channel="mail",outcome="postponed"}'),
    ("notifier-deliver", 'waybill_deliveries_total{channel="mail",outcome="failed"}'),
    ("notifier-deliver", 'waybill_deliveries_pending{channel="mail"}'),
    ("notifier-deliver", 'waybill_delivery_channel_resting{channel="mail"}'),
    ("notifier-deliver", 'waybill_deliveries_oldest_age_seconds{channel="mail"}'),
]


async def figures(stack: StackUnderTest) -> dict[tuple[str, str], float]:
    """The values by process and series, as Prometheus scrapes them."""
    ports = json.loads((stack.folder / "ports.json").read_text())
    found: dict[tuple[str, str], float] = {}
    async with httpx.AsyncClient() as client:
        for process in {process for process, _ in GROWING}:
            text = (await client.get(f"http://127.0.0.1:{ports[process]}/metrics")).text
            for line in text.splitlines():
                if not line.startswith("#"):
                    series, _, value = line.rpartition(" ")
                    found[process, series] = float(value)
    return found


async def test_an_order_and_a_sign_out_change_the_metrics_of_every_hop(
    stack: StackUnderTest, customer: Any, mailbox: Any
) -> None:
    before = await figures(stack)
    order = (await customer.order()).json()
    await mailbox.wait_for(customer.email, order["id"])
    (await customer.client.delete("/sessions", headers=customer.bearer)).raise_for_status()

    async def moved() -> bool:
        after = await figures(stack)
        still = [figure for figure in GROWING if after.get(figure, 0) <= before.get(figure, 0)]
        assert not still
        return True

    await eventually(moved, within=30)
    assert before.keys() >= set(ZERO_AT_FIRST)
    fetched = before["orders-api", "waybill_jwks_fetched_timestamp_seconds"]
    assert 0 <= time.time() - fetched < 3600


async def test_rabbitmq_exports_what_the_rules_ask_it_for(stack: StackUnderTest) -> None:
    """As Prometheus scrapes it in compose and on Kubernetes, with the service's own queues among the labels."""
    rules = (stack.checkout / "deploy" / "observability" / "prometheus" / "rules.yml").read_text()
    config = yaml.safe_load((stack.checkout / "deploy" / "observability" / "prometheus" / "prometheus.yml").read_text())
    jobs = [job for job in config["scrape_configs"] if job["job_name"].startswith("rabbitmq")]
    async with httpx.AsyncClient(base_url=stack.status["broker"]["metrics_url"]) as client:
        pages = [await client.get(job.get("metrics_path", "/metrics"), params=job.get("params")) for job in jobs]
    text = "".join(page.raise_for_status().text for page in pages)
    exported = {line.split("{")[0].split(" ")[0] for line in text.splitlines()}
    asked = set(re.findall(r"\brabbitmq_\w+", rules))
    assert len(asked) >= 7
    assert asked <= exported
    assert re.search(r'rabbitmq_detailed_queue_consumers\{[^}]*queue="notifier.inbound"[^}]*\} [1-9]', text)
