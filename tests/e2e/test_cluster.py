"""A cluster of three RabbitMQ nodes that loses the leader of the queue, under load, again and again."""

from pathlib import Path

import pytest

from common.testing.plugin import MakeDatabase

from .backbone import MIGRATIONS, backbone_on
from .cluster import cluster_in
from .conftest import Tell
from .wire import through, wire_to

pytestmark = pytest.mark.slow
ROUNDS = 3


async def test_a_cluster_that_loses_the_queues_leader_loses_and_doubles_nothing(
    make_database: MakeDatabase, tmp_path: Path, tell: Tell
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
                # The other two elect a new one and go on, long before the third is back.
                await backbone.until_more(within=60)
                await cluster.leader("shop.inbound")
        count = await backbone.settle(within=120)
    tell(f"{count}, leaders killed: {', '.join(killed)}")
    assert count.faults == (0, 0, 0)
