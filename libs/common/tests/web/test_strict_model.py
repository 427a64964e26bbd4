"""`StrictModel` itself, without a request."""

from typing import Any

import pytest
from pydantic import ValidationError

from .test_bodies import Note


@pytest.mark.parametrize(
    "values",
    [
        {"text": "\x00"},
        {"text": "\ud800"},
        {"tags": {"a": ["\x00"]}},
        {"tags": {"\ud800": []}},
        {"secret": "\x00"},
        {"lines": [{"sku": "\x00"}]},
    ],
)
def test_a_strict_model_refuses_such_text_without_the_parser(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Note.model_validate(values)


def test_a_strict_model_is_frozen_and_changes_nothing() -> None:
    note = Note.model_validate({"text": "  é  "})
    assert note.text == "  é  "
    with pytest.raises(ValidationError):
        note.text = "other"  # type: ignore[misc]
