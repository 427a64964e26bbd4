from pathlib import Path

import pytest

from waybill_dev.base.state import State, find_state


@pytest.fixture
def state(tmp_path: Path) -> State:
    """An empty state folder of this checkout."""
    empty = State(find_state().checkout, tmp_path / "state")
    empty.make()
    return empty
