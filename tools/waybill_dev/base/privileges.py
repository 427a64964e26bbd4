"""PostgreSQL refuses to run as root. When `./dev` runs as root, PostgreSQL runs as the user `nobody`."""

import os
import pwd
import shutil
from pathlib import Path

from waybill_dev.errors import LocalError

USER = "nobody"
# Each lets a process enter folders that are closed to its user, such as a checkout in root's home. Containers grant
# the second one more often.
PASSING_CAPABILITIES = {"dac_read_search": 2, "dac_override": 1}


def drop_root(folder: Path) -> tuple[str, ...]:
    """The words to put before a command that must not run as root. Empty for an ordinary user."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalError(
            "PostgreSQL does not run as root, and `setpriv` (util-linux) is missing. Run ./dev as another user."
        )
    user = pwd.getpwnam(USER)
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    capabilities: tuple[str, ...] = ("--inh-caps=-all",)
    if not (_open_to_all(folder) and _open_to_all(Path(__file__))):
        capability = _passing_capability(folder)
        capabilities = (
            f"--inh-caps=-all,+{capability}",
            f"--ambient-caps=-all,+{capability}",
            # PostgreSQL looks for its files by access(2), which counts capabilities only with this bit.
            "--securebits=+no_setuid_fixup",
        )
    # A change of user clears the parent-death signal, so it is set again.
    return (setpriv, *identity, *capabilities, "--pdeathsig=INT", "--")


def give_to(*paths: Path) -> None:
    """Gives the paths to the user that `drop_root` switches to."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(USER)
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid)


def _open_to_all(path: Path) -> bool:
    """Whether any user may enter all folders above `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def _passing_capability(folder: Path) -> str:
    status = Path("/proc/self/status").read_text()
    bounding = int(next(line for line in status.splitlines() if line.startswith("CapBnd")).split()[1], 16)
    for name, bit in PASSING_CAPABILITIES.items():
        if bounding >> bit & 1:
            return name
    raise LocalError(
        f"PostgreSQL does not run as root but as `{USER}`, which can't enter {folder}: "
        "move the checkout to a folder that everybody may enter (chmod a+x), or run ./dev as an ordinary user."
    )
