import json
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from common.web.json_body import MAX_DEPTH, MalformedJson, parse_json

STORABLE = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | STORABLE,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(STORABLE, children, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(VALUES, st.booleans())
def test_every_json_value_survives_the_parser(value: Any, ensure_ascii: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text('[]{}:,"\\u0dfe1.-+ntr ', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused_and_nothing_else_happens(body: bytes) -> None:
    try:
        value = parse_json(body)
    except (MalformedJson, RequestValidationError):
        return
    assert value == json.loads(body)
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def test_nesting_is_accepted_up_to_the_limit_and_counts_depth_not_brackets() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert len(parse_json(b"[" + b",".join([b"{}"] * 100) + b"]")) == 100
    with pytest.raises(MalformedJson):
        parse_json(b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1))
