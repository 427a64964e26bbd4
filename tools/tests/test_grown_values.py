"""A released list of values may grow only in a field that `deploy/releases.toml` names."""

import json
from pathlib import Path
from typing import Any

import pytest

from waybill_dev.checks.contract_compatibility.__main__ import compared

ROLE = "events/users.user.role_changed.v1.schema.json"


def complaints(now: Path, role: dict[str, Any], grown: dict[str, str]) -> list[str]:
    now.write_text(json.dumps({"properties": {"role": role}, "required": ["role"]}))
    before = json.dumps({"properties": {"role": {"type": "string", "enum": ["user", "admin"]}}, "required": ["role"]})
    return list(compared(ROLE, before, now, "users 0.1.0", grown=grown))


def test_only_a_named_field_may_have_more_values(tmp_path: Path) -> None:
    more = {"type": "string", "enum": ["user", "support", "admin"]}
    assert complaints(tmp_path / "now", more, {"role": "readers compare with the roles that they know"}) == []
    for grown in ({}, {"kind": "another field"}):
        (complaint,) = complaints(tmp_path / "now", more, grown)
        assert "role: may now be 'support' since users 0.1.0" in complaint


@pytest.mark.parametrize("role", [{"type": "string"}, {"type": "integer"}, {"type": "string", "enum": ["user"]}])
def test_a_named_field_may_not_change_otherwise(tmp_path: Path, role: dict[str, Any]) -> None:
    assert complaints(tmp_path / "now", role, {"role": "readers compare with the roles that they know"})


def test_a_field_may_be_missing_only_where_the_release_names_it(tmp_path: Path) -> None:
    before, now = (json.dumps(client({"required": required})) for required in (["client_id", "secret"], ["client_id"]))
    (tmp_path / "now").write_text(now)
    since = "auth 0.1.0"
    (complaint,) = compared("auth/openapi.json", before, tmp_path / "now", since, absent={"client_id": "another"})
    assert "secret: was always there, now may be missing" in complaint
    assert list(compared("auth/openapi.json", before, tmp_path / "now", since, absent={"secret": "public"})) == []


def client(schema: dict[str, Any]) -> dict[str, Any]:
    properties = {"client_id": {"type": "string"}, "secret": {"type": "string"}}
    content = {"application/json": {"schema": {"type": "object", "properties": properties} | schema}}
    responses = {"201": {"description": "Created", "content": content}}
    return {"openapi": "3.1.0", "paths": {"/clients": {"post": {"operationId": "add", "responses": responses}}}}
