"""`docs/settings.md` has every setting of every service."""

import importlib
import re

import pytest
from pydantic_settings import BaseSettings

from waybill_dev.checks.settings_page import _section, page
from waybill_dev.services.programs import ROLES

SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", page(), re.MULTILINE))


@pytest.mark.parametrize("service", ROLES)
def test_every_setting_of_a_service_is_on_the_page(service: str) -> None:
    settings = importlib.import_module(f"{service}.settings").Settings.model_fields
    text = SECTIONS["Every service"] + SECTIONS[service]
    assert [name for name in settings if f"`WAYBILL_{name.upper()}`" not in text] == []


def test_a_row_says_values_default_and_meaning() -> None:
    rows = SECTIONS["notifier"].splitlines()
    assert any(row.startswith("| `WAYBILL_SMTP_TLS` | `off`, `starttls`, `implicit` | `off` | ") for row in rows)
    secret = "| `WAYBILL_WEBHOOK_KEY` | **secret**: file `waybill_webhook_key` | required | "
    assert any(row.startswith(secret) for row in rows)


def test_a_default_of_a_services_own_is_in_its_section() -> None:
    assert "`WAYBILL_DATABASE_POOL_SIZE` | integer from 1 to 100 | `5`" in SECTIONS["Every service"]
    assert "`WAYBILL_DATABASE_POOL_SIZE` | integer from 1 to 100 | `3`" in SECTIONS["orders"]


class Silent(BaseSettings):
    documented: str
    """What it is for."""
    undocumented: str


def test_a_setting_without_a_docstring_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="add a docstring to undocumented"):
        _section("silent", Silent, Silent.model_fields)
