"""Request headers that several operations take."""

from typing import Annotated, Final

from fastapi import Header, Request

MAX_IDEMPOTENCY_KEY: Final = 255

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_IDEMPOTENCY_KEY,
        pattern="^[\\x21-\\x7e]+$",
        description="Send a request again with the same key, and it takes effect once: the answer is the first one's.",
    ),
]


def is_known(request: Request, etag: str) -> bool:
    """Whether the client has what `etag` names already (`If-None-Match`). Weak tags count (RFC 9110 §13.1.2)."""
    tags = ",".join(request.headers.getlist("if-none-match")).split(",")
    return not {etag, "*"}.isdisjoint(tag.strip().removeprefix("W/") for tag in tags)
