"""Request headers that several services read."""

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
        description="Send a request again with the same key, and it takes effect once: the answer is the first one's.",
    ),
]


def matches_if_none_match(request: Request, etag: str) -> bool:
    """Whether the client has what `etag` names already (`If-None-Match`). Weak tags count (RFC 9110 §13.1.2)."""
    tags = ",".join(request.headers.getlist("if-none-match")).split(",")
    return not {etag, "*"}.isdisjoint(tag.strip().removeprefix("W/") for tag in tags)


def client_address(request: Request) -> str:
    """Where the caller is, for throttling.

    The rightmost `X-Forwarded-For` entry is the peer that the gateway saw; what stands left of it, the caller wrote.
    """
    forwarded = ",".join(request.headers.getlist("x-forwarded-for")).rpartition(",")[2].strip()
    return (forwarded or (request.client.host if request.client is not None else ""))[:_LONGEST_ADDRESS]
