"""The operators' commands of orders."""

from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from common.cli import event_commands
from orders.settings import Settings


@pytest.mark.parametrize("command", [["tail"], ["replay", "--since", "1h", "--to-queue", "acme.inbound"]])
@pytest.mark.parametrize("unknown", ["orders.order.plcaed.v1", "users.user.updated.v1", "orders.order.placed.v2"])
def test_a_type_that_orders_does_not_publish_is_refused_with_those_it_does(command: list[str], unknown: str) -> None:
    known = ["--type", "orders.order.placed.v1"]
    settings: Any = Settings.model_construct(database_url=SecretStr("unused"))
    result = CliRunner().invoke(event_commands.events, [*command, *known, "--type", unknown], obj=lambda _: settings)
    assert result.exit_code == 2
    assert repr(unknown) in result.output
    assert "orders.order.cancelled.v1" in result.output
