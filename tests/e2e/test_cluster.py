"""A cluster of three RabbitMQ nodes that repeatedly loses the leader of the queue under load."""

from pathlib import Path

import pytest

from common.testing.plugin import MakeDatabase

from .backbone import MIGRATIONS, backbone_on
from .cluster import cluster_in
from .conftest import Report
from .wire import through, wire_to

pytestmark = pytest.mark.slow
ROUNDS = 3


async def test_a_cluster_that_loses_the_queues_leader_loses_and_duplicates_nothing(
    make_database: MakeDatabase, tmp_path: Path, report: Report
) -> None:
    database_url = await make_database(MIGRATIONS)
    async with (
        cluster_in(tmp_path) as cluster,
        wire_to(*cluster.ports) as balancer,
        backbone_on(database_url, through(balancer, cluster.amqp_url), tmp_path / "shop.log") as backbone,
    ):
        for role in ("relay", "relay", "consume"):
            await backbone.start(role)
        killed = []
        async with backbone.load():
            for _ in range(ROUNDS):
                await backbone.until_more(within=60)
                leader = await cluster.leader("shop.inbound")
                await cluster.kill(leader)
                killed.append(leader)
                # The other two nodes elect a new leader long before the third is back.
                await backbone.until_more(within=60)
                await cluster.leader("shop.inbound")
        count = await backbone.settle(within=120)
    report(f"{count}, leaders killed: {', '.join(killed)}")
    assert count.faults == (0, 0, 0)
