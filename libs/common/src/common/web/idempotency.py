"""Safe repetition of requests: the `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header).

The key is stored with what the request created, in the same transaction and under a unique constraint. So there is no
separate store of answers that could expire or disagree with the state. A key belongs to its sender and is looked up
together with the sender. A refused request created nothing and stores no key.
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
    """The sender's key, and the SHA-256 of the request that it was sent with."""

    value: str
    request_hash: bytes

    @classmethod
    def of(cls, header: str | None, body: BaseModel) -> "IdempotencyKey | None":
        """Hashes the parsed body, so that white space and the order of fields do not matter."""
        return cls(header, hashlib.sha256(body.model_dump_json().encode()).digest()) if header is not None else None

    def check(self, request_hash: bytes) -> None:
        """Raises `IdempotencyKeyReused` if the stored `request_hash` is another request's."""
        if request_hash != self.request_hash:
            raise IdempotencyKeyReused("A key identifies one request. Use a new key.")
