"""Released versions, from `deploy/releases.toml`, and checkouts of them to run with current services."""

import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from waybill_dev.errors import LocalError


@dataclass(frozen=True)
class Release:
    """`commit` is the full name of the one that the service's image was built from."""

    service: str
    version: str
    commit: str


def releases(checkout: Path) -> dict[str, Release]:
    """By service; without those that have none yet. What a release allows its successors is for the checks alone."""
    content = tomllib.loads((checkout / "deploy" / "releases.toml").read_text())
    return {service: Release(service, table["version"], table["commit"]) for service, table in content.items()}


def has(checkout: Path, commit: str) -> bool:
    """Whether this clone, which may be a shallow one or an unpacked archive, can bring the commit back."""
    return _git(checkout, "cat-file", "-e", f"{commit}^{{tree}}").returncode == 0


def check_out(checkout: Path, commit: str) -> Path:
    """A work tree at `commit` with an environment of its own, made by its own `./dev`; kept for the next time."""
    folder = checkout / ".dev" / "releases" / commit
    if not folder.exists():
        # Forced: `git` may still know one that was deleted.
        added = _git(checkout, "worktree", "add", "--quiet", "--force", "--detach", str(folder), commit)
        if added.returncode != 0:
            raise LocalError(f"no work tree of {commit}: {added.stderr.strip()}")
    made = subprocess.run(
        [folder / "dev", "--help"], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if made.returncode != 0:
        raise LocalError(f"no environment of {commit}: {made.stderr.strip()}")
    return folder


def _git(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", checkout, *words], check=False, capture_output=True, text=True)
