"""A folder in memory for throw-away data. Databases of tests are created there in a fraction of the time."""

import os
import shutil
import zlib
from pathlib import Path

from waybill_dev.base.state import State

MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it is checked to be ours
ROOM = 2 * 1024**3


def scratch(state: State) -> Path:
    """A folder for throw-away data: in memory where at least ROOM bytes are free, else the state folder.

    A state folder always gets the same one, so that a run reuses what a killed run left.
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
    """Frees the memory. The state folder itself stays."""
    folder = _folder(state)
    if _is_ours(folder):
        shutil.rmtree(folder)


def _folder(state: State) -> Path:
    return MEMORY / f"waybill-{os.geteuid()}-{zlib.crc32(bytes(state.folder)):08x}"


def _is_ours(folder: Path) -> bool:
    """Any user may create folders and links in MEMORY."""
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
