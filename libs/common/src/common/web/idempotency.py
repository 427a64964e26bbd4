"""Safe repetition of requests: the `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header).

The key is stored with what the request created, in the same transaction and under a unique constraint. So there is no
separate store of answers that could expire or disagree with the state. A key belongs to its sender and is looked up
together with the sender. A refused request created nothing and stores no key.
"""

import hashlib
from collections.abc import Collection
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
    """The sender's key, and the SHA-256 of the request that it was sent with."""

    value: str
    request_hash: bytes

    @classmethod
    def of(cls, header: str | None, body: BaseModel, *, always: Collection[str] = ()) -> "IdempotencyKey | None":
        """Hashes the fields that were sent. White space and the order of fields do not matter.

        A field that a later release adds is not in the hash of a request without it, so a request can be repeated at
        another release than it was first sent to. `always` are the optional fields that 0.1.0 hashed sent or not;
        that list never grows.
        """
        if header is None:
            return None
        hashed = body.model_copy(update={name: getattr(body, name) for name in always})
        return cls(header, hashlib.sha256(hashed.model_dump_json(exclude_unset=True).encode()).digest())

    def check(self, request_hash: bytes) -> None:
        """Raises `IdempotencyKeyReused` if the stored `request_hash` is another request's."""
        if request_hash != self.request_hash:
            raise IdempotencyKeyReused("A key identifies one request. Use a new key.")
