"""Searches for text in every table of every service and in every log."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import asyncpg


async def in_tables(status: Mapping[str, Any], wanted: Iterable[str]) -> list[str]:
    """Returns which of `wanted` is in which table, as text or in binary columns."""
    found = []
    for service, known in status["services"].items():
        connection = await asyncpg.connect(known["database_url"])
        try:
            tables = await connection.fetch(
                "SELECT oid::regclass::text AS name FROM pg_class"
                " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
            for table in tables:
                rows = await connection.fetch(f"SELECT t::text AS row FROM {table['name']} t")  # noqa: S608
                content = "\n".join(row["row"] for row in rows)
                found += [
                    f"{text[:12]}… in {service}.{table['name']}"
                    for text in wanted
                    if text in content or text.encode().hex() in content
                ]
        finally:
            await connection.close()
    return found


def in_logs(folder: Path, wanted: Iterable[str]) -> list[str]:
    found = []
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            found += [f"{text[:12]}… in {file.name}" for text in wanted if text.encode() in content]
    return found
