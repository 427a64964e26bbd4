"""docs/guarantees.md names a test for each promise, and that test exists."""

import re

from waybill_dev.base.state import find_state


def test_every_promise_names_a_test_that_exists() -> None:
    checkout = find_state().checkout
    proofs = re.findall(r"`([\w/.]+\.py)::(\w+)`", (checkout / "docs" / "guarantees.md").read_text())
    assert len(proofs) > 10
    missing = [f"{path}::{name}" for path, name in proofs if f"def {name}(" not in (checkout / path).read_text()]
    assert missing == []
