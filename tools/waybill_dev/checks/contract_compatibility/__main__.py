"""Prints every incompatible change in `contracts/` since the last release of its service.

    python -m waybill_dev.checks.contract_compatibility CHECKOUT

`deploy/releases.toml` has a table for each released service:

    [orders]
    version = "0.1.0"
    commit = "…40 hexadecimal digits…"
    retired = ["orders.order.placed.v1"]
    grown = {kind = "clients show the title of a kind that they do not know"}
    absent = {client_secret = "only who registers a public client gets none"}

`retired` lists the event types that may be removed, because no queue is bound to them any more. `grown` lists the
fields whose listed values may become more, each with the reason why its readers can bear a value that is new to them.
`absent` lists the fields of responses that may now be missing, each with the reason why no reader of before misses it.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from waybill_dev.checks.contract_compatibility.documents import asyncapi_breaks, event_breaks, openapi_breaks
from waybill_dev.services.programs import ROLES


def complaints(checkout: Path) -> Iterator[str]:
    file = checkout / "deploy" / "releases.toml"
    releases = tomllib.loads(file.read_text()) if file.exists() else {}
    for service, release in releases.items():
        if service not in ROLES:
            yield f"deploy/releases.toml: unknown service {service}"
            continue
        try:
            published = _published(checkout, service, release["commit"])
        except subprocess.CalledProcessError as error:
            yield (
                f"deploy/releases.toml: {service} {release['version']}: {error.stderr.strip()}; "
                "in a shallow clone, `git fetch --unshallow` brings it"
            )
            continue
        for name, text in published.items():
            since = f"{service} {release['version']}"
            exempt = {key: release.get(key, ()) for key in ("retired", "grown", "absent")}
            yield from compared(name, text, checkout / "contracts" / name, since, **exempt)


def compared(
    name: str,
    text: str,
    now: Path,
    since: str,
    retired: Collection[str] = (),
    *,
    grown: Collection[str] = (),
    absent: Collection[str] = (),
) -> Iterator[str]:
    """A sentence for each incompatible change of one file: which field, what happened, and what to do instead."""
    if not now.exists():
        if _event_type(name) not in retired:
            yield f"contracts/{name}: is gone since {since}. {_advice(name)}"
        return
    kind = {"openapi.json": openapi_breaks, "asyncapi.yaml": asyncapi_breaks}.get(Path(name).name, event_breaks)
    before = _read(name, text)
    if kind is asyncapi_breaks:
        for event_type in retired:
            before["channels"].pop(event_type, None)
            before["operations"].pop(f"send.{event_type}", None)
    for found in dict.fromkeys(kind(before, _read(name, now.read_text()))):
        field = re.split(r"[.\s]", found.where)[-1]
        if found.what.startswith("may now be '") and field in grown:
            continue
        if found.what == "was always there, now may be missing" and field in absent:
            continue
        yield f"contracts/{name}: {found.where or 'the document'}: {found.what} since {since}. {_advice(name)}"


def _advice(name: str) -> str:
    if name.startswith("events/"):
        event_type = _event_type(name)
        stem, _, version = event_type.rpartition(".v")
        return (
            f"Leave {event_type} as it was (a new optional field is fine) and publish {stem}.v{int(version) + 1} too."
        )
    if name.endswith("asyncapi.yaml"):
        return "Leave it as it was, and add new channels and messages."
    return "Leave it as it was: add an optional field, an optional parameter, or a new path."


def _event_type(name: str) -> str:
    return Path(name).name.removesuffix(".schema.json")


def _published(checkout: Path, service: str, commit: str) -> dict[str, str]:
    """The service's own files below `contracts/` at the released commit."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", checkout, *words], check=True, capture_output=True, text=True, encoding="utf-8"
        ).stdout

    listed = git("ls-tree", "-r", "--name-only", "--full-tree", commit, "contracts/").splitlines()
    names = (path.removeprefix("contracts/") for path in listed)
    own = [name for name in names if name.startswith((f"{service}/", f"events/{service}."))]
    return {name: git("show", f"{commit}:contracts/{name}") for name in own}


def _read(name: str, text: str) -> Any:
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


if __name__ == "__main__":
    found = list(complaints(Path(sys.argv[1])))
    print("\n".join(found))
    sys.exit(1 if found else 0)
