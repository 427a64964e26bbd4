"""Which roles a service has, in this version and in others."""

import pytest

from waybill_dev.base.state import State
from waybill_dev.services.programs import ROLES, has_role


@pytest.mark.parametrize("service", ROLES)
def test_this_version_has_all_its_roles(state: State, service: str) -> None:
    assert all(has_role(state, service, role) for role in ROLES[service])
    assert not has_role(state, service, "dance")


def test_a_version_older_than_a_role_runs_without_it(state: State) -> None:
    before = state.folder / "before"
    package = before / "services" / "orders" / "src" / "orders"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text('roles={"api": "orders.app:create_app", "relay": RELAY},')
    (state.folder / "from").mkdir()
    (state.folder / "from" / "orders").symlink_to(before)
    assert [role for role in ROLES["orders"] if has_role(state, "orders", role)] == ["api", "relay"]
