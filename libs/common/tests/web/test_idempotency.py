"""Requests with an `Idempotency-Key`."""

from typing import Any

import pytest

from common.web import StrictModel
from common.web.idempotency import IdempotencyKey, IdempotencyKeyReused


class Ask(StrictModel):
    what: str
    note: str | None = None


class LaterPart(StrictModel):
    name: str
    colour: str = "red"


class Part(StrictModel):
    name: str


class Assembly(StrictModel):
    parts: list[Part]


class LaterAssembly(StrictModel):
    gift: bool = False
    parts: list[LaterPart]
    deliver_by: str | None = None


def test_a_request_without_a_key_has_no_idempotency_key() -> None:
    assert IdempotencyKey.of(None, Ask(what="x")) is None


def test_white_space_and_field_order_do_not_change_the_request() -> None:
    spellings = ('{"what":"x"}', '{ "note": null, "what": "\\u0078" }')
    keys = {IdempotencyKey.of("k", Ask.model_validate_json(spelling), always=["note"]) for spelling in spellings}
    assert len(keys) == 1


@pytest.mark.parametrize("body", [{"parts": [{"name": "wheel"}, {"name": "é"}]}, {"parts": []}])
def test_optional_fields_of_a_later_release_do_not_change_the_request(body: dict[str, Any]) -> None:
    before = IdempotencyKey.of("k", Assembly.model_validate(body))
    assert IdempotencyKey.of("k", LaterAssembly.model_validate(body)) == before
    assert IdempotencyKey.of("k", LaterAssembly.model_validate(body | {"gift": False})) != before


def test_another_request_with_the_same_key_is_refused() -> None:
    first, second = (IdempotencyKey.of("k", Ask(what=what)) for what in ("x", "y"))
    assert first is not None
    assert second is not None
    first.check(first.request_hash)
    with pytest.raises(IdempotencyKeyReused):
        first.check(second.request_hash)
