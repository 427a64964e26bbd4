"""Throw-away data goes to memory where that can be had, and never into what is not ours."""

from pathlib import Path

import pytest

from local import memory
from local.state import State


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "memory")
    monkeypatch.setattr(memory, "ROOM", 0)
    memory.MEMORY.mkdir()
    (tmp_path / "state").mkdir()
    return State(tmp_path, tmp_path / "state")


def test_each_run_finds_the_same_folder_and_another_checkout_another(state: State, tmp_path: Path) -> None:
    folder = memory.scratch(state)
    assert folder.parent == memory.MEMORY
    assert memory.scratch(state) == folder != memory.scratch(State(tmp_path, tmp_path / "other"))


def test_what_is_discarded_is_gone_and_the_state_stays(state: State) -> None:
    (memory.scratch(state) / "data").mkdir()
    memory.discard(state)
    memory.discard(state)
    assert not list(memory.MEMORY.iterdir())
    assert state.folder.exists()


def test_without_room_or_without_memory_the_state_folder_is_used(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(memory, "ROOM", 2**62)
        assert memory.scratch(state) == state.folder
    memory.MEMORY.rmdir()
    assert memory.scratch(state) == state.folder
    memory.discard(state)


def test_somebody_elses_link_is_neither_used_nor_emptied(state: State, tmp_path: Path) -> None:
    ours = memory.scratch(state)
    ours.rmdir()
    (tmp_path / "precious").mkdir()
    ours.symlink_to(tmp_path / "precious")
    assert memory.scratch(state) == state.folder
    memory.discard(state)
    assert (tmp_path / "precious").exists()
