"""Which roles a service has, in this version and in others."""

import pytest

from waybill_dev.base.state import State
from waybill_dev.services.programs import ROLES, command, folder, has_role, offered_commands


@pytest.mark.parametrize("service", ROLES)
def test_this_version_has_all_its_roles(state: State, service: str) -> None:
    assert all(has_role(state, service, role) for role in ROLES[service])
    assert not has_role(state, service, "dance")
    offered = offered_commands(command(state, service, "--help"), folder(state, service))
    assert {*ROLES[service], "migrate"} <= offered
    assert "consume" not in offered or "consume" in ROLES[service]


def test_a_version_older_than_a_role_runs_without_it(state: State) -> None:
    before = state.folder / "before"
    (before / "services" / "orders").mkdir(parents=True)
    python = before / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/sh\nprintf 'Usage: orders\\n\\nCommands:\\n  api    Serve HTTP.\\n  relay  Publish.\\n'\n"
    )
    python.chmod(0o755)
    (state.folder / "from").mkdir()
    (state.folder / "from" / "orders").symlink_to(before)
    assert [role for role in ROLES["orders"] if has_role(state, "orders", role)] == ["api", "relay"]
