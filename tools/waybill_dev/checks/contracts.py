"""Writes what is generated from the services' code: `contracts/` and `docs/settings.md`.

With `--check` it writes nothing, and prints which file is not what the code says.
"""

import asyncio
import importlib
import json
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml
from pydantic import SecretStr

from common.messaging.asyncapi import asyncapi, event_types, schema
from common.runtime.health import Health
from waybill_dev.base.state import find_state
from waybill_dev.checks import settings_page
from waybill_dev.services.programs import ROLES

VERSION = "1.0.0"


def documents() -> Iterator[tuple[str, str]]:
    """Yields the name below `contracts/` and the text of every file."""
    for service, roles in ROLES.items():
        yield f"{service}/openapi.json", _json(asyncio.run(_openapi(service)))
        if "relay" not in roles:
            continue
        events = event_types(importlib.import_module(f"{service}.events"))
        document = asyncapi(service, events, version=VERSION)
        yield f"{service}/asyncapi.yaml", yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
        for event in events:
            yield f"events/{event.type}.schema.json", _json(schema(event))


async def _openapi(service: str) -> dict[str, Any]:
    kind = importlib.import_module(f"{service}.settings").Settings
    # Nothing is connected to: the document describes the routes alone.
    secrets = {name: SecretStr("unused") for name, field in kind.model_fields.items() if field.is_required()}
    app = importlib.import_module(f"{service}.app").create_app(kind.model_construct(**secrets), Health())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://contracts") as client:
        answer = await client.get("/openapi.json")
    document: dict[str, Any] = answer.raise_for_status().json()
    return document


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def drift(folder: Path, wanted: dict[str, str]) -> list[str]:
    """A sentence for each file of the folder that is not what the code says, is missing, or has no source."""
    sentences = []
    for name, text in wanted.items():
        path = folder / name
        if not path.exists():
            sentences.append(f"contracts/{name} is missing")
        elif path.read_text() != text:
            sentences.append(f"contracts/{name} is not what the code says")
    return sentences + [
        f"contracts/{path.relative_to(folder)} belongs to nothing in the code" for path in extra(folder, wanted)
    ]


def extra(folder: Path, wanted: Collection[str]) -> list[Path]:
    known = {folder / name for name in wanted}
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in known]


def main() -> None:
    checkout = find_state().checkout
    contracts, settings = checkout / "contracts", checkout / "docs" / "settings.md"
    wanted, page = dict(documents()), settings_page.page()
    if "--check" in sys.argv[1:]:
        sentences = drift(contracts, wanted)
        if not settings.exists() or settings.read_text() != page:
            sentences.append("docs/settings.md is not what the code says")
        if sentences:
            print("\n".join([*sentences, "Run ./dev contracts and commit what it writes."]))
            sys.exit(1)
        return
    for path, text in {**{contracts / name: text for name, text in wanted.items()}, settings: page}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in extra(contracts, wanted):
        path.unlink()
    print(f"wrote {len(wanted)} files to contracts/, and docs/settings.md")


if __name__ == "__main__":
    main()
