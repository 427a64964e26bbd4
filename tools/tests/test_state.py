import socket
import subprocess
import sys

import pytest

from waybill_dev.base import credentials
from waybill_dev.base.state import LOOPBACK, State, find_state


def test_a_port_is_remembered(state: State) -> None:
    assert state.port("gateway") == state.port("gateway")


def test_a_preferred_port_is_reserved_when_it_is_free(state: State) -> None:
    free = state.port("probe")
    other = State(state.checkout, state.folder / "other")
    other.make()
    assert other.port("gateway", preferred=free) == free


def test_a_port_in_use_is_replaced_by_another_one_that_is_remembered(state: State) -> None:
    first = state.port("gateway")
    with socket.create_server((LOOPBACK, first)):
        second = state.port("gateway")
    assert second != first
    assert state.port("gateway") == second


@pytest.mark.skipif(sys.platform != "linux", reason="ports are claimed on Linux")
def test_a_port_that_another_checkout_has_claimed_is_left_alone(state: State) -> None:
    first = state.port("gateway")
    other = State(state.checkout, state.folder / "other")
    other.make()
    code = "import sys; from pathlib import Path; from waybill_dev.base.state import State;"
    code += " print(State(Path(), Path(sys.argv[1])).port('gateway', preferred=int(sys.argv[2])))"
    printed = subprocess.check_output([sys.executable, "-c", code, other.folder, str(first)], text=True)
    assert int(printed) != first


def test_no_two_names_share_a_port(state: State) -> None:
    port = state.port("one")
    assert state.port("two", preferred=port) != port


def test_the_state_folder_is_the_checkouts_unless_the_environment_names_another() -> None:
    assert find_state({}).folder == find_state({}).checkout / ".dev"
    assert str(find_state({"WAYBILL_STATE_DIR": "/elsewhere"}).folder) == "/elsewhere"


def test_a_secret_is_created_once_and_only_its_owner_may_read_it(state: State) -> None:
    secret = credentials.secret(state, "orders", "password")
    assert credentials.secret(state, "orders", "password") == secret
    assert len(secret) >= 43
    file = state.secrets / "orders" / "password"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert state.secrets.stat().st_mode & 0o777 == 0o700
