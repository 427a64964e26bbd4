"""RabbitMQ and pip from Debian's or Ubuntu's own packages, unpacked into a cache: no root, nothing installed.

Standard library only: it also runs before the virtual environment exists.
"""

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from waybill_dev.errors import LocalError
from waybill_dev.progress import say


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "waybill"


def is_debian() -> bool:
    """Whether apt and dpkg are at hand, as on Debian, Ubuntu and their like."""
    return all(shutil.which(program) for program in ("apt-get", "apt-cache", "dpkg-deb"))


def unpacked(package: str, *, family: str | None = None) -> Path:
    """The folder with `package` and what it needs unpacked; downloaded at the first call.

    `family` is a name prefix of dependencies to bring even where the system has them (an Erlang of the
    system's does not see libraries outside its own folder); other dependencies come only if missing.
    Raises LocalError with apt's last words.
    """
    place = cache_folder() / f"{package}-{_system()}"
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.with_suffix(".lock")):
        if not place.is_dir():
            with tempfile.TemporaryDirectory(prefix=f".{package}-", dir=place.parent) as work:
                say(f"downloading {package} and what it needs (nothing is installed on the system)")
                tree = _download(Path(work), package, family)
                _relocate_erlang(tree, place)
                tree.rename(place)
    return place


def library_path(tree: Path) -> str:
    """LD_LIBRARY_PATH for programs of an unpacked tree."""
    folders = {file.parent for pattern in ("lib/**/*.so*", "usr/lib/*/*.so*") for file in tree.glob(pattern)}
    return ":".join(sorted(str(folder) for folder in folders))


def _system() -> str:
    release = platform.freedesktop_os_release()
    return f"{release['ID']}-{release.get('VERSION_ID', 'rolling')}-{platform.machine()}"


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _download(work: Path, package: str, family: str | None) -> Path:
    apt = _Apt(work)
    apt.run("apt-get", "update")
    names = set(apt.needed(package))
    if family is not None:
        names |= {name for name in apt.needed(package, nothing_installed=True) if name.startswith(family)}
    apt.run("apt-get", "download", *sorted(names | {package}), folder=work / "archives")
    tree = work / "tree"
    for archive in sorted((work / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", archive, tree], check=True)
    return tree


class _Apt:
    """apt with a state of its own and the system's sources, keys and proxies."""

    def __init__(self, work: Path) -> None:
        self.work = work
        for folder in ("lists/partial", "cache/archives/partial", "archives"):
            (work / folder).mkdir(parents=True)
        (work / "empty").touch()
        self.options = [
            f"-oDir::State::lists={work}/lists",
            f"-oDir::Cache={work}/cache",
            "-oDebug::NoLocking=1",
            "-oAPT::Sandbox::User=root",  # apt's own user can't enter this folder
            "-oAcquire::Retries=2",
            "-oAPT::Update::Post-Invoke::=true",
        ]

    def needed(self, package: str, *, nothing_installed: bool = False) -> list[str]:
        """The packages that installing `package` would add to this system, or to an empty one."""
        status = [f"-oDir::State::status={self.work}/empty"] if nothing_installed else []
        plan = self.run("apt-get", *status, "--simulate", "--no-install-recommends", "install", package)
        return re.findall(r"^Inst (\S+)", plan, re.MULTILINE)

    def run(self, program: str, *arguments: str, folder: Path | None = None) -> str:
        done = subprocess.run(
            [program, "-q", *self.options, *arguments],
            cwd=folder or self.work,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        # An update fails where any one source does; what matters is whether the package is found after it.
        if done.returncode != 0 and "update" not in arguments:
            raise LocalError(f"apt failed: {program} {' '.join(arguments)}\n{done.stderr.strip()}")
        return done.stdout


def _relocate_erlang(tree: Path, place: Path) -> None:
    """Erlang's start scripts hold the folder where Debian installs it; point them at the final one."""
    for script in tree.glob("usr/lib/erlang/**/bin/*"):
        if script.is_symlink() or script.stat().st_size > 100_000:
            continue
        content = script.read_bytes()
        if content.startswith(b"#!"):
            script.write_bytes(content.replace(b"/usr/lib/erlang", f"{place}/usr/lib/erlang".encode()))
