"""The command `python -m auth keys`."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from pydantic import SecretStr

from auth.keys.commands import keys
from auth.settings import Settings
from common.cli.audit_commands import audit
from common.security.sealing import KeyEncryption

from .conftest import Auth, Users, serving
from .test_sessions import bearer


async def command(settings: Settings, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, keys, arguments, obj=lambda _: settings)


async def rows(settings: Settings, *arguments: str) -> list[dict[str, Any]]:
    result = await command(settings, *arguments, "--json")
    assert result.exit_code == 0, result.output
    listed: list[dict[str, Any]] = json.loads(result.stdout)
    return listed


async def test_keys_are_listed_for_people_and_scripts(auth: Auth, settings: Settings) -> None:
    (row,) = await rows(settings, "list")
    assert (row["status"], row["algorithm"]) == ("active", "ES256")
    published = (await auth.http.get("/.well-known/jwks.json")).json()["keys"]
    assert [key["kid"] for key in published] == [row["kid"]]
    table = await command(settings, "list")
    assert table.exit_code == 0
    assert "active" in table.stdout


async def test_a_rotation_publishes_a_key_and_leaves_the_active_one(auth: Auth, settings: Settings) -> None:
    (first,) = await rows(settings, "rotate")
    (second,) = await rows(settings, "rotate")
    assert first["status"] == second["status"] == "pending"
    trail = await asyncio.to_thread(CliRunner().invoke, audit, ["tail", "--json"], obj=lambda _: settings)
    acts = [(act["action"], act["subject"]) for act in json.loads(trail.stdout)]
    assert acts == [("keys.rotated", first["kid"]), ("keys.rotated", second["kid"])]
    assert [row["status"] for row in await rows(settings, "list")] == ["active", "pending", "pending"]
    assert (await auth.token(grant_type="client_credentials")).status_code == 401


async def test_an_emergency_ends_all_access_tokens_and_no_session(auth: Auth, settings: Settings, users: Users) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    (row,) = await rows(settings, "rotate", "--emergency")
    assert row["status"] == "active"
    async with serving(settings, users) as restarted:
        assert (await restarted.http.get("/sessions", headers=bearer(tokens))).status_code == 401
        fresh = (await restarted.refresh(tokens["refresh_token"])).json()
        assert (await restarted.http.get("/sessions", headers=bearer(fresh))).status_code == 200


async def test_rewrap_encrypts_the_keys_with_the_new_key_encryption_key(
    auth: Auth, settings: Settings, tmp_path: Path
) -> None:
    new = base64.urlsafe_b64encode(b"\xfb" * 32).decode()  # with characters of that alphabet alone
    changed = settings.model_copy(update={"key_encryption_key": SecretStr(new)})
    old_key = tmp_path / "old"
    old_key.write_text(settings.key_encryption_key.get_secret_value())
    result = await command(changed, "rewrap", "--old-key", str(old_key))
    assert (result.exit_code, result.stdout) == (0, "1 rewrapped\n")
    (row,) = await rows(changed, "list")
    assert row["kek_id"] == KeyEncryption(b"\xfb" * 32).id
    old_key.write_text(new)
    result = await command(settings, "rewrap", "--old-key", str(old_key))
    assert (result.exit_code, result.stdout) == (0, "1 rewrapped\n")


async def test_a_wrong_old_key_is_reported_without_a_traceback(auth: Auth, settings: Settings, tmp_path: Path) -> None:
    old_key = tmp_path / "old"
    old_key.write_text("AAAA")
    result = await command(settings, "rewrap", "--old-key", str(old_key))
    assert result.exit_code == 1
    assert "Traceback" not in result.output
