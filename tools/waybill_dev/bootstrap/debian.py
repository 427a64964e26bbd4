"""RabbitMQ and pip from Debian's or Ubuntu's packages, unpacked into a cache: without root, installing nothing.

Standard library only, because it also runs before the virtual environment exists.
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
    """Whether apt and dpkg are available, as on Debian, Ubuntu and their derivatives."""
    return all(shutil.which(program) for program in ("apt-get", "apt-cache", "dpkg-deb"))


def unpacked(package: str, *, family: str | None = None) -> Path:
    """Returns the folder in which `package` and its dependencies are unpacked. The first call downloads them.

    Dependencies that the system has are left out, except those whose name starts with `family`: the system's Erlang
    would not see libraries outside its own folder. Raises LocalError with apt's error output.
    """
    if (found := unpacked_before(package)) is not None:
        return found
    folder = _folder(package)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(prefix=f".{package}-", dir=folder.parent) as work:
                say(f"downloading {package} and its dependencies (nothing is installed on the system)")
                tree = _download(Path(work), package, family)
                _relocate_erlang(tree, folder)
                tree.rename(folder)
    return folder


def unpacked_before(package: str) -> Path | None:
    """As `unpacked`, but downloads nothing."""
    folder = _folder(package)
    return folder if folder.is_dir() else None


def library_path(tree: Path) -> str:
    """LD_LIBRARY_PATH for the programs in an unpacked tree."""
    folders = {file.parent for pattern in ("lib/**/*.so*", "usr/lib/*/*.so*") for file in tree.glob(pattern)}
    return ":".join(sorted(str(folder) for folder in folders))


def _folder(package: str) -> Path:
    return cache_folder() / f"{package}-{_system()}"


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
    """apt with its own state, and the system's sources, keys and proxies."""

    def __init__(self, work: Path) -> None:
        self.work = work
        for folder in ("lists/partial", "cache/archives/partial", "archives"):
            (work / folder).mkdir(parents=True)
        (work / "empty").touch()
        self.options = [
            f"-oDir::State::lists={work}/lists",
            f"-oDir::Cache={work}/cache",
            "-oDebug::NoLocking=1",
            "-oAPT::Sandbox::User=root",  # apt's own user cannot enter this folder
            "-oAcquire::Retries=2",
            "-oAPT::Update::Post-Invoke::=true",
        ]

    def needed(self, package: str, *, nothing_installed: bool = False) -> list[str]:
        """The packages that an installation of `package` would add to this system, or to an empty one."""
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
        # An update fails when a single source does. What matters is whether the package is found afterwards.
        if done.returncode != 0 and "update" not in arguments:
            raise LocalError(f"apt failed: {program} {' '.join(arguments)}\n{done.stderr.strip()}")
        return done.stdout


def _relocate_erlang(tree: Path, folder: Path) -> None:
    """Replaces the path of Debian's installation in Erlang's start scripts by `folder`, the final one."""
    for script in tree.glob("usr/lib/erlang/**/bin/*"):
        if script.is_symlink() or script.stat().st_size > 100_000:
            continue
        content = script.read_bytes()
        if content.startswith(b"#!"):
            script.write_bytes(content.replace(b"/usr/lib/erlang", f"{folder}/usr/lib/erlang".encode()))
