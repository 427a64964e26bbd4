"""Entity tags of orders, made from the version, and conditional requests with them (RFC 9110 §8.8.3, §13.1)."""

import re
from typing import Annotated, Any, Final

from fastapi import Header

from common.errors import BadRequest

_JOINED: Final = re.compile(r",(?!\s)")
_TAG: Final = re.compile(r'(?P<weak>W/)?"(?P<version>[0-9]{1,9})"')

IfMatch = Annotated[
    str | None, Header(description="Change the order only if its ETag is one of these.", max_length=1000)
]
IF_NONE_MATCH: Final[dict[str, Any]] = {
    "name": "if-none-match",
    "in": "header",
    "schema": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "description": "Return the order only if its ETag is none of these.",
}
"""What `is_not_modified` reads, for the OpenAPI document. A parameter of FastAPI for it took a tenth of the request."""


def etag(version: int) -> str:
    return f'"{version}"'


def expected_versions(if_match: str | None) -> frozenset[int] | None:
    """The versions that the client accepts, or None for any. Weak tags never match here (§13.1.1).

    Raises BadRequest for tags without a space in between: Envoy joins a header that came twice like that.
    """
    if if_match is not None and _JOINED.search(if_match):
        raise BadRequest("If-Match came more than once, or has no space after a comma.")
    if if_match is None or if_match.strip() == "*":
        return None
    return frozenset(int(tag["version"]) for tag in _TAG.finditer(if_match) if not tag["weak"])
