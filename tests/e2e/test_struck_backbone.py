"""Every step of every event is right, and none is lost, doubled or out of order, while all processes are struck."""

import os
from pathlib import Path

import pytest

from common.testing.plugin import MakeDatabase

from .backbone import MIGRATIONS
from .conftest import Report
from .struck_backbone import Shape, struck_backbone

pytestmark = pytest.mark.slow
EVENTS = int(os.environ.get("WAYBILL_STRUCK_EVENTS", "1200"))
SEED = int(os.environ.get("WAYBILL_SEED", "1"))


@pytest.mark.parametrize(
    "shape",
    [Shape(relays=2, partitions=4, consumers=3, queues=4), Shape(relays=2, partitions=1, consumers=2, queues=1)],
    ids=["wide", "narrow"],
)
async def test_a_struck_backbone_breaks_no_rule(
    shape: Shape, make_database: MakeDatabase, amqp_url: str, tmp_path: Path, report: Report
) -> None:
    async with struck_backbone(shape, await make_database(MIGRATIONS), amqp_url, tmp_path) as backbone:
        await backbone.record(EVENTS, seed=SEED, every=EVENTS // 12)
        await backbone.repair()
        checked = await backbone.checked(tmp_path / "history")
    report(f"{checked.events} events, {checked.steps} steps, {backbone.strikes} strikes of seed {SEED}")
    assert checked.violations == []
    assert checked.events == backbone.recorded
