"""Keyset pagination: a page starts after the last row of the page before, so every page costs the same."""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Generic, Protocol, TypeVar
from zlib import crc32

from fastapi import Depends, Query, Request
from pydantic import BaseModel

from common.errors import BadRequest
from common.web.models import storable_text

MAX_LIMIT: Final = 100
MAX_CURSOR: Final = 512
"""Characters. A cursor of ours holds two short values, so a longer one is not ours."""
_BIGINT: Final = 2**63 - 1

T = TypeVar("T")
Row = TypeVar("Row")
Row_co = TypeVar("Row_co", covariant=True)
Parse = Callable[[str], Any]


class InvalidCursor(BadRequest):
    code, title = "invalid_cursor", "Invalid cursor"


class Page(BaseModel, Generic[T]):
    """One page of a list. `next_cursor` is opaque, and null on the last page."""

    items: list[T]
    next_cursor: str | None = None


class Fetch(Protocol[Row_co]):
    """A query of up to `limit` rows after a keyset: a value for a list ordered by one column, else a tuple."""

    def __call__(self, *, after: Any, limit: int) -> Awaitable[Sequence[Row_co]]: ...


@dataclass(frozen=True, slots=True)
class PageParams:
    """`?limit=` and `?cursor=` of a list, as a parameter `page: PageDep`. A cursor is valid only for its own path."""

    path: str
    limit: int
    cursor: str | None

    async def load(self, fetch: Fetch[Row], *, by: Mapping[str, Parse], item: Callable[[Row], T]) -> Page[T]:
        """The page that `fetch` returns. `by` names the attributes that the list is ordered by, with their parsers.

        It fetches one row more than the page holds; if that row exists, there is a next page. Raises InvalidCursor.
        """
        keyset = decode_cursor(self.path, self.cursor, *by.values()) if self.cursor is not None else None
        after = keyset[0] if keyset is not None and len(by) == 1 else keyset
        rows = await fetch(after=after, limit=self.limit + 1)
        shown = rows[: self.limit]
        more = len(rows) > self.limit
        cursor = encode_cursor(self.path, [getattr(shown[-1], name) for name in by]) if more else None
        return Page(items=[item(row) for row in shown], next_cursor=cursor)


class _PageParams:
    statuses: Final = (400,)

    async def __call__(
        self,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="The maximum number of items to return.")] = 20,
        cursor: Annotated[str | None, Query(description="`next_cursor` of the previous page.")] = None,
    ) -> PageParams:
        return PageParams(request.scope["path"], limit, cursor)


PageDep = Annotated[PageParams, Depends(_PageParams())]


def encode_cursor(path: str, values: Sequence[Any]) -> str:
    """A URL-safe text of the list's path and its keyset values, each as text (times in ISO 8601)."""
    texts = (value.isoformat() if isinstance(value, datetime) else str(value) for value in values)
    parts = [_mark(path), *texts]
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).rstrip(b"=").decode()


def decode_cursor(path: str, cursor: str, *types: Parse) -> tuple[Any, ...]:
    """The values of a cursor for the list at `path`, parsed by `types` (such as `instant, UUID`).

    Raises InvalidCursor for anything else. Another list's cursor would start somewhere in the middle of this list.
    """
    try:
        if len(cursor) > MAX_CURSOR:
            raise ValueError
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(parts, list) or not all(isinstance(part, str) and storable_text(part) for part in parts):
            raise TypeError
        values = tuple(parse(part) for parse, part in zip(types, parts[1:], strict=True))
        if encode_cursor(path, values) != cursor or any(
            isinstance(value, int) and abs(value) > _BIGINT for value in values
        ):
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise InvalidCursor("Use `next_cursor` unchanged, or omit `cursor`.") from None
    return values


def _mark(path: str) -> str:
    return f"{crc32(path.encode(errors='replace')):08x}"


def instant(text: str) -> datetime:
    """Parses a time in UTC, as PostgreSQL returns them. Raises ValueError for any other."""
    value = datetime.fromisoformat(text)
    if value.utcoffset() != timedelta(0):
        raise ValueError("not in UTC")
    return value
