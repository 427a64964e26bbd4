"""Throw-away data is in memory where there is room, and never in a folder of another user."""

from pathlib import Path

import pytest

from waybill_dev.base import ram_disk
from waybill_dev.base.state import State


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setattr(ram_disk, "MEMORY", tmp_path / "memory")
    monkeypatch.setattr(ram_disk, "ROOM", 0)
    ram_disk.MEMORY.mkdir()
    (tmp_path / "state").mkdir()
    return State(tmp_path, tmp_path / "state")


def test_each_run_gets_the_same_folder_and_another_checkout_another_one(state: State, tmp_path: Path) -> None:
    folder = ram_disk.scratch(state)
    assert folder.parent == ram_disk.MEMORY
    assert ram_disk.scratch(state) == folder != ram_disk.scratch(State(tmp_path, tmp_path / "other"))


def test_discard_deletes_the_folder_and_keeps_the_state(state: State) -> None:
    (ram_disk.scratch(state) / "data").mkdir()
    ram_disk.discard(state)
    ram_disk.discard(state)
    assert not list(ram_disk.MEMORY.iterdir())
    assert state.folder.exists()


def test_without_room_or_without_memory_the_state_folder_is_used(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ram_disk, "ROOM", 2**62)
        assert ram_disk.scratch(state) == state.folder
    ram_disk.MEMORY.rmdir()
    assert ram_disk.scratch(state) == state.folder
    ram_disk.discard(state)


def test_a_link_in_place_of_the_folder_is_neither_used_nor_emptied(state: State, tmp_path: Path) -> None:
    ours = ram_disk.scratch(state)
    ours.rmdir()
    (tmp_path / "precious").mkdir()
    ours.symlink_to(tmp_path / "precious")
    assert ram_disk.scratch(state) == state.folder
    ram_disk.discard(state)
    assert (tmp_path / "precious").exists()
