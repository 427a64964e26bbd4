"""Requests that may be sent again: the `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header).

The key is stored with what the request made, in the same transaction and under a unique constraint, so there is no
store of answers to fill, to expire, or to disagree with the state. A key is its sender's: it is looked up together with
who sent it. A refused request made nothing and leaves none.
"""

import hashlib
from dataclasses import dataclass

from pydantic import BaseModel

from common.errors import Conflict, Unprocessable


class IdempotencyKeyReused(Unprocessable):
    code, title = "idempotency_key_reused", "Idempotency key used for another request"


class RequestInFlight(Conflict):
    code, title = "request_in_flight", "A request with this idempotency key is being processed"

    def __init__(self) -> None:
        super().__init__("Send it again in a moment.", headers={"Retry-After": "1"})


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The sender's key and a hash (32 bytes) of the request it came with."""

    value: str
    request_hash: bytes

    @classmethod
    def of(cls, header: str | None, body: BaseModel) -> "IdempotencyKey | None":
        """The body's meaning is hashed, not its spelling: white space and the order of fields do not count."""
        return cls(header, hashlib.sha256(body.model_dump_json().encode()).digest()) if header is not None else None

    def check(self, request_hash: bytes) -> None:
        """Raises `IdempotencyKeyReused` where the key was first used with another request."""
        if request_hash != self.request_hash:
            raise IdempotencyKeyReused("A key stands for one request; take a new one.")
