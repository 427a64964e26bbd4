import base64
import json
import os
from pathlib import Path

import pytest

from common.settings import ServiceSettings
from waybill_dev.compose.secrets import make_secrets
from waybill_dev.services.programs import ROLES

from .compose_file import environment
from .services_code import settings_of

READERS = (*ROLES, "postgres", "rabbitmq")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for reader in READERS:
        (tmp_path / reader).mkdir()
    make(tmp_path)
    return tmp_path


def make(folder: Path) -> None:
    make_secrets(folder, service_group=os.getgid(), server_group=os.getgid())


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("service", ROLES)
def test_each_service_starts_with_its_secrets_and_the_environment_of_its_containers(
    service: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("WAYBILL_")]:
        monkeypatch.delenv(name)
    for role in ROLES[service]:
        for name, value in environment(f"{service}-{role}").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("WAYBILL_SECRETS_DIR", str(folder / service))
        settings = settings_of(service).load()
        assert settings.database_url.get_secret_value().endswith(f"@postgres:5432/{service}")
        assert settings.retry_delays == ServiceSettings.model_fields["retry_delays"].default


def test_a_second_start_makes_no_new_passwords(folder: Path) -> None:
    before = contents(folder)
    make(folder)
    after = contents(folder)
    # Its password hashes have a new salt each time.
    for files in (before, after):
        del files["rabbitmq/definitions.json"]
    assert after == before


def test_only_its_group_may_read_a_secret(folder: Path) -> None:
    assert {file.stat().st_mode & 0o777 for file in folder.rglob("*") if file.is_file()} == {0o440}
    assert {(folder / reader).stat().st_mode & 0o777 for reader in READERS} == {0o750}


def test_auth_knows_the_other_services_by_digests_alone(folder: Path) -> None:
    clients = json.loads((folder / "auth" / "waybill_service_clients").read_text())
    assert {client["client_id"] for client in clients} == set(ROLES)
    for service in ROLES:
        assert (folder / service / "waybill_client_secret").read_text() not in json.dumps(clients)


def test_keys_have_256_bits(folder: Path) -> None:
    for name in (
        "auth/waybill_key_encryption_key",
        "auth/waybill_refresh_token_secret",
        "users/waybill_key_encryption_key",
        "notifier/waybill_webhook_key",
    ):
        assert len(base64.b64decode((folder / name).read_text(), validate=True)) == 32


def test_the_broker_knows_each_service_by_a_hash(folder: Path) -> None:
    definitions = json.loads((folder / "rabbitmq" / "definitions.json").read_text())
    assert {user["name"] for user in definitions["users"]} >= set(ROLES)
    assert all("password" not in user for user in definitions["users"])
