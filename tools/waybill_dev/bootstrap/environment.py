"""Creates `.venv`. `./dev` runs this with any Python, before anything is installed: standard library only.

    PYTHONPATH=tools python3 -m waybill_dev.bootstrap.environment CHECKOUT

pip installs uv, with its hash checked, and uv installs the rest (measured: 3 s, pip 55 s). Where uv does not run, pip
installs everything.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from waybill_dev.bootstrap import debian
from waybill_dev.errors import LocalError
from waybill_dev.progress import say

STAMP = "waybill-made-from"  # the lock and services.toml, as `./dev` compares them


class Environment:
    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.lock_file = checkout / "requirements.lock"
        self.declaration = checkout / "services.toml"
        self.folder = checkout / ".venv"
        self.python = self.folder / "bin" / "python"

    def make(self) -> None:
        """Creates or updates it. A second `./dev` of this checkout waits for the first. Raises LocalError."""
        (self.checkout / ".dev").mkdir(exist_ok=True)
        with (self.checkout / ".dev" / "setup.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._is_current():
                return
            if not self._runs():
                say(f"creating .venv with Python {sys.version.split()[0]}")
                self._create()
            say("installing the dependencies of requirements.lock")
            self._install()
            self._link_sources()
            (self.folder / STAMP).write_bytes(self._made_from())

    def _is_current(self) -> bool:
        stamp = self.folder / STAMP
        return stamp.exists() and stamp.read_bytes() == self._made_from()

    def _made_from(self) -> bytes:
        return self.lock_file.read_bytes() + self.declaration.read_bytes()

    def _runs(self) -> bool:
        """Whether it exists, and its Python still exists and is new enough."""
        check = [str(self.python), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        return self.python.exists() and subprocess.run(check, check=False).returncode == 0

    def _create(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", "--without-pip", self.folder], "python3 -m venv")

    def _install(self) -> None:
        if not self._uv_is_current():
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as stanza:
                stanza.write(uv_stanza(self.lock_file.read_text()))
                stanza.flush()
                self._pip("install", "--no-deps", "-r", stanza.name)
        uv = str(self.folder / "bin" / "uv")
        # Compiled once here, instead of by a dozen processes at the first boot.
        options = ["--quiet", "--compile-bytecode", "--require-hashes", f"--python={self.python}"]
        # The system's certificates, as pip uses them: they include those of a proxy.
        environment = {"UV_SYSTEM_CERTS": "true", **os.environ}
        try:
            subprocess.run(
                [uv, "pip", "sync", *options, self.lock_file],
                check=True,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        except (OSError, subprocess.CalledProcessError):
            say("uv failed; installing with pip, which takes about a minute")
            self._pip("install", "-r", str(self.lock_file))

    def _uv_is_current(self) -> bool:
        wanted = re.search(r"^uv==(\S+)", self.lock_file.read_text(), re.MULTILINE)
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(self.folder)}))
        return wanted is not None and any(packages.parent.parent.glob(f"*/site-packages/uv-{wanted[1]}.dist-info"))

    def _pip(self, *arguments: str) -> None:
        command = [*self._pip_command(), *arguments, "--require-hashes", "--quiet", "--no-input"]
        _run([*command, "--disable-pip-version-check"], "pip")

    def _pip_command(self) -> list[str]:
        """The pip that the running Python bundles, run by the environment's Python; else Debian's, unpacked."""
        wheel = bundled_pip()
        if wheel is not None:
            return [str(self.python), f"{wheel}/pip"]
        probe = [sys.executable, "-m", "pip", "--version"]
        if subprocess.run(probe, check=False, capture_output=True).returncode == 0:
            return [sys.executable, "-m", "pip", "--python", str(self.python)]
        if debian.is_debian():
            tree = debian.unpacked("python3-pip-whl")
            wheels = sorted(tree.glob("usr/share/python-wheels/pip-*.whl"))
            return [str(self.python), f"{wheels[-1]}/pip"]
        raise LocalError(
            "this Python has neither pip nor ensurepip. Install them with\n"
            "  Debian, Ubuntu:  sudo apt-get install python3-venv\n"
            "  Fedora:          sudo dnf install python3-pip"
        )

    def _link_sources(self) -> None:
        """Puts the folders of our own code on the path, relative to the environment. It is not installed."""
        packages = subprocess.run(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        services = tomllib.loads(self.declaration.read_text())
        sources = ("libs/common/src", *(f"services/{service}/src" for service in services), "tools")
        lines = [os.path.relpath(self.checkout / source, packages) for source in sources]
        (Path(packages) / "waybill.pth").write_text("\n".join(lines) + "\n")


def uv_stanza(lock: str) -> str:
    """The lines of a requirements file that pin uv and its hashes."""
    found = re.search(r"^uv==.*(?:\n[ \t]+--hash=.*)+", lock, re.MULTILINE)
    if found is None:
        raise LocalError("requirements.lock does not pin uv")
    return found[0] + "\n"


def bundled_pip() -> Path | None:
    """The pip wheel of `ensurepip`, which Debian leaves out."""
    library = Path(sysconfig.get_path("stdlib"))
    folders = [library / "ensurepip" / "_bundled"]
    if packaged := sysconfig.get_config_var("WHEEL_PKG_DIR"):
        folders.append(Path(packaged))
    wheels = sorted(wheel for folder in folders for wheel in folder.glob("pip-*.whl"))
    return wheels[-1] if wheels else None


def _run(command: Sequence[str | Path], name: str) -> None:
    done = subprocess.run(
        [str(word) for word in command], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise LocalError(f"{name} failed (exit code {done.returncode}):\n{last}")


def main() -> None:
    try:
        Environment(Path(sys.argv[1])).make()
    except LocalError as error:
        print(f"./dev: {error}", file=sys.stderr)
        sys.exit(1)
    except tomllib.TOMLDecodeError as error:
        print(f"./dev: services.toml: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
