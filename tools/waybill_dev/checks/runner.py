"""Runs checks in parallel. A check is a command or a function that returns what is wrong as text."""

import asyncio
import os
import re
import sys
import time
import tomllib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from waybill_dev.services.programs import ROLES

Check = Callable[[], Awaitable[str | None]]
OWN = "waybill-"
COMMON = f"{OWN}common"


@dataclass(frozen=True)
class Outcome:
    """`complaint` is the text for a person to read, or None when the check passed."""

    name: str
    seconds: float
    complaint: str | None


async def run_all(checks: Sequence[tuple[str, Check]], *, at_once: int, done: Callable[[Outcome], None]) -> bool:
    """Runs all checks, `at_once` in parallel, and calls `done` after each. Returns whether all passed."""
    slots = asyncio.Semaphore(at_once)

    async def run(name: str, check: Check) -> Outcome:
        async with slots:
            began = time.monotonic()
            outcome = Outcome(name, 0, await check())
            outcome = Outcome(name, time.monotonic() - began, outcome.complaint)
        done(outcome)
        return outcome

    outcomes = await asyncio.gather(*(run(name, check) for name, check in checks))
    return all(outcome.complaint is None for outcome in outcomes)


def command(*words: str | Path, folder: Path, environment: Mapping[str, str] = MappingProxyType({})) -> Check:
    """A check that runs Python with these arguments in `folder`. If it fails, its output is the complaint.

    `environment` is added to this process's.
    """

    async def check() -> str | None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *map(str, words),
            cwd=folder,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return output.decode(errors="replace").rstrip() if process.returncode != 0 else None

    return check


def locks_agree(checkout: Path) -> Check:
    """Every service's lock is a subset of the root's, satisfies its pyproject, and names no registry."""

    async def check() -> str | None:
        root = pins(checkout / "requirements.lock")
        complaints = [
            *_unmet(checkout / "pyproject.toml", root, checkout),
            *_registries(checkout / "requirements.lock"),
        ]
        for service in ROLES:
            folder = checkout / "services" / service
            own = pins(folder / "requirements.lock")
            complaints += _registries(folder / "requirements.lock")
            complaints += [
                f"services/{service}/requirements.lock and requirements.lock differ in {name}"
                for name, pin in own.items()
                if root.get(name) != pin
            ]
            complaints += _unmet(folder / "pyproject.toml", own, checkout)
        return "\n".join([*complaints, "./dev lock writes the locks again"]) if complaints else None

    return check


def pins(lock: Path) -> dict[str, str]:
    """Each package's version with its hashes, or both where it is pinned twice, for different systems."""
    found: dict[str, str] = {}
    for stanza in re.findall(r"^[A-Za-z0-9][^\n]*(?:\n[ \t]+[^\n]*)*", lock.read_text(), re.MULTILINE):
        requirement, *rest = (line.strip(" \\") for line in stanza.splitlines())
        name = canonicalize_name(re.split(r"[=\[ ;]", requirement)[0])
        # Markers may differ, as they depend on which packages require this one.
        version = requirement.partition(" ")[0]
        hashes = sorted(line for line in rest if line.startswith("--hash="))
        pin = " ".join([version, *hashes])
        found[name] = f"{found[name]} {pin}" if name in found else pin
    return found


def _unmet(pyproject: Path, locked: dict[str, str], checkout: Path) -> Iterator[str]:
    for requirement in _requirements(pyproject, checkout):
        if requirement.name.startswith(OWN):
            file = f"services/{requirement.name.removeprefix(OWN)}/pyproject.toml"
            yield f"{pyproject.relative_to(checkout)} requires {requirement.name}, {file} is missing"
            continue
        pin = locked.get(canonicalize_name(requirement.name), "")
        version = re.match(r"\S+==([^\s;]+)", pin)
        if version is None or not requirement.specifier.contains(version[1], prereleases=True):
            has = version[0] if version else "nothing"
            yield f"{pyproject.relative_to(checkout)} asks for {requirement}, its lock has {has}"


def _requirements(pyproject: Path, checkout: Path) -> Iterator[Requirement]:
    """Its requirements, with those of our own packages in place of the packages that exist."""
    content = tomllib.loads(pyproject.read_text())
    listed = [*content["project"].get("dependencies", ()), *content.get("dependency-groups", {}).get("dev", ())]
    for requirement in map(Requirement, listed):
        folder = "libs" if requirement.name == COMMON else "services"
        file = checkout / folder / requirement.name.removeprefix(OWN) / "pyproject.toml"
        if requirement.name.startswith(OWN) and file.exists():
            yield from _requirements(file, checkout)
        else:
            yield requirement


def _registries(lock: Path) -> Iterator[str]:
    for line in lock.read_text().splitlines():
        if "://" in line:
            yield f"{lock.name} names a registry: {line.strip()}"
