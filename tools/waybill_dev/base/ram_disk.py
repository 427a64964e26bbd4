"""Memory as a disk, for data that nobody wants back: a test's database is made there in a fraction of the time."""

import os
import shutil
import zlib
from pathlib import Path

from waybill_dev.base.state import State

MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it is checked to be ours
ROOM = 2 * 1024**3


def scratch(state: State) -> Path:
    """A folder for throw-away data: in memory where the system offers that with room to spare, else the state folder.

    The same for each run of one state folder, so that what a killed run left is found and used again.
    """
    folder = _folder(state)
    try:
        if shutil.disk_usage(MEMORY).free < ROOM:
            return state.folder
        folder.mkdir(mode=0o711, exist_ok=True)
    except OSError:
        return state.folder
    return folder if _is_ours(folder) else state.folder


def discard(state: State) -> None:
    """Gives the memory back. The state folder itself is left alone."""
    folder = _folder(state)
    if _is_ours(folder):
        shutil.rmtree(folder)


def _folder(state: State) -> Path:
    return MEMORY / f"waybill-{os.geteuid()}-{zlib.crc32(bytes(state.folder)):08x}"


def _is_ours(folder: Path) -> bool:
    """Anybody may make folders there, and links."""
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
