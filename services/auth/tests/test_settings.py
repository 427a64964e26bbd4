"""Settings are read from the environment, secrets from files."""

import json
from pathlib import Path

import pytest

from auth.settings import Settings

KEY = "aWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWk="


def write_secrets(folder: Path, **changes: str) -> None:
    clients = [{"client_id": "orders", "secret_sha256": "0" * 64, "scopes": ["revocations:read"]}]
    secrets = {
        "database_url": "postgresql://auth:secret@localhost/auth",
        "amqp_url": "amqp://auth:secret@localhost/",
        "key_encryption_key": KEY + "\n",
        "refresh_token_secret": KEY,
        "service_clients": json.dumps(clients),
    } | changes
    for name, value in secrets.items():
        (folder / f"waybill_{name}").write_text(value)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WAYBILL_SECRETS_DIR", str(tmp_path))
    for name in ("PUBLIC_URL", "AUTH_URL", "USERS_URL"):
        monkeypatch.setenv(f"WAYBILL_{name}", f"http://{name.lower()}.test/")
    return tmp_path


def test_secrets_are_read_from_files_and_never_shown_in_a_repr(environment: Path) -> None:
    write_secrets(environment)
    settings = Settings.load()
    assert settings.public_url == "http://public_url.test"
    assert settings.key_encryption_bytes == b"i" * 32
    assert [client.client_id for client in settings.service_clients] == ["orders"]
    for secret in (KEY, "secret@"):
        assert secret not in repr(settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"key_encryption_key": "c2hvcnQ="},
        {"key_encryption_key": "not base64!"},
        {"refresh_token_secret": "c2hvcnQ="},
        {"service_clients": '[{"client_id": "orders", "secret_sha256": "secret"}]'},
        {"service_clients": "[{"},
    ],
)
def test_an_invalid_secret_prevents_the_start(environment: Path, changes: dict[str, str]) -> None:
    write_secrets(environment, **changes)
    with pytest.raises(ValueError) as refusal:
        Settings.load()
    assert not any(value in str(refusal.value) for name, value in changes.items() if name != "service_clients")
