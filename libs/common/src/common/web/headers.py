"""Request headers that several services use."""

from typing import Annotated, Final

from fastapi import Header, Request

MAX_IDEMPOTENCY_KEY: Final = 255
_LONGEST_ADDRESS: Final = 64

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_IDEMPOTENCY_KEY,
        pattern="^[\\x21-\\x7e]+$",
        description="Retry with the same key: the request is processed once, and a retry gets the first answer.",
    ),
]


def is_not_modified(request: Request, etag: str) -> bool:
    """Whether to answer 304: `If-None-Match` holds `etag` or `*`. Weak tags match, too (RFC 9110 §13.1.2)."""
    tags = ",".join(request.headers.getlist("if-none-match")).split(",")
    return not {etag, "*"}.isdisjoint(tag.strip().removeprefix("W/") for tag in tags)


def client_address(request: Request) -> str:
    """The caller's address, for throttling.

    It is the rightmost `X-Forwarded-For` entry, which the gateway adds. The caller can write any entry left of it.
    """
    forwarded = ",".join(request.headers.getlist("x-forwarded-for")).rpartition(",")[2].strip()
    return (forwarded or (request.client.host if request.client is not None else ""))[:_LONGEST_ADDRESS]
