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
