"""The operators' commands: a system gets its first admin, and a person who lost their second factor gets in again."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyotp
import pytest
from pydantic import SecretStr

from users.settings import Settings

Run = Any


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> Run:
    """Runs a command as an operator does, with settings from the environment and secrets in files."""
    for name in ("database_url", "amqp_url", "client_secret", "key_encryption_key"):
        (tmp_path / f"waybill_{name}").write_text(getattr(settings, name).get_secret_value())
    environment = {
        "PATH": os.environ["PATH"],
        "WAYBILL_SECRETS_DIR": str(tmp_path),
        "WAYBILL_PUBLIC_URL": settings.public_url,
        "WAYBILL_AUTH_URL": settings.auth_url,
    }

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "users", *words],
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


async def test_promote_creates_the_first_admin_and_records_the_event(world: Any, run: Run) -> None:
    person = await world.sign_up(email="ann@example.com")
    done = run("promote", "Ann@Example.com", "admin")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ann@example.com is admin now, was user\n", "")
    again = run("promote", "ann@example.com", "admin")
    assert (again.returncode, again.stdout) == (0, "ann@example.com is admin already\n")
    data = {"user_id": person["id"], "role": "admin"}
    assert (await world.events(person["id"]))[1:] == [
        {"type": "users.user.role_changed.v1", "version": 2, "data": data}
    ]


async def test_promote_of_an_unknown_account_or_to_an_unknown_role_fails_with_a_message(world: Any, run: Run) -> None:
    nobody = run("promote", "nobody@example.com", "admin")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "nobody@example.com: There is no such user." in nobody.stderr
    assert run("promote", "nobody@example.com", "king").returncode == 2


async def test_promote_does_not_demote_the_last_admin(world: Any, run: Run) -> None:
    admin = await world.admin()
    refused = run("promote", admin["email"], "user")
    assert refused.returncode == 1
    assert "last active admin" in refused.stderr


async def test_promote_without_a_database_fails_with_a_message(run: Run, tmp_path: Path) -> None:
    (tmp_path / "waybill_database_url").write_text("postgresql://nobody@127.0.0.1:1/none")
    failed = run("promote", "ann@example.com", "admin")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr


async def test_an_operator_sees_the_pending_events_of_the_outbox(world: Any, run: Run) -> None:
    await world.sign_up()
    shown = run("outbox", "status", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["pending"] == 1


async def test_a_promotion_is_in_the_audit_trail_under_the_operators_login_name(world: Any, run: Run) -> None:
    person = await world.sign_up()
    assert run("promote", person["email"], "staff", LOGNAME="ann").returncode == 0
    assert run("promote", person["email"], "staff", LOGNAME="ann").returncode == 0  # changes nothing
    [act] = json.loads(run("audit", "tail", "--json").stdout)
    assert (act["actor"], act["action"], act["subject"]) == ("operator:ann", "user.role_changed", person["id"])
    assert (act["detail"], act["request_id"]) == ("user to staff", None)


async def with_second_factor(world: Any) -> tuple[Any, pyotp.TOTP]:
    person = await world.sign_up()
    headers = world.bearer(person)
    app = pyotp.TOTP((await world.public.post("/me/authenticators/totp", headers=headers)).json()["secret"])
    body = {"code": app.now()}
    assert (await world.public.post("/me/authenticators/totp/confirm", json=body, headers=headers)).status_code == 200
    return person, app


async def test_an_operator_removes_a_second_factor_that_was_lost(world: Any, run: Run) -> None:
    person, _ = await with_second_factor(world)
    assert (await world.log_in(person["email"])).status_code == 401
    done = run("authenticators", "remove", person["email"].upper())
    assert (done.returncode, done.stdout) == (0, f"{person['email']} signs in without a code now\n")
    assert (await world.log_in(person["email"])).status_code == 200
    assert (await world.events(person["id"]))[-1]["data"] == {"user_id": person["id"], "change": "removed"}
    again = run("authenticators", "remove", person["email"])
    assert again.returncode == 1
    assert "There is no such authenticator." in again.stderr
    [act] = json.loads(run("audit", "tail", "--json").stdout)
    assert (act["action"], act["subject"]) == ("authenticator.removed", person["id"])


async def test_the_key_that_encrypts_authenticators_can_be_changed(
    start: Any, settings: Settings, run: Run, tmp_path: Path
) -> None:
    person, app = await with_second_factor(await start(settings))
    new = base64.b64encode(b"n" * 32).decode()
    (tmp_path / "old_key").write_text(settings.key_encryption_key.get_secret_value())
    (tmp_path / "waybill_key_encryption_key").write_text(new)
    done = run("authenticators", "rewrap", "--old-key", str(tmp_path / "old_key"))
    assert (done.returncode, done.stdout) == (0, "1 rewrapped\n"), done.stderr
    assert run("authenticators", "rewrap", "--old-key", str(tmp_path / "old_key")).stdout == "0 rewrapped\n"
    later = app.generate_otp(int(time.time()) // 30 + 1)
    world = await start(settings.model_copy(update={"key_encryption_key": SecretStr(new)}))
    assert (await world.log_in(person["email"], otp=later)).json()["amr"] == ["pwd", "otp", "mfa"]
    (tmp_path / "old_key").write_text("AAAA")
    failed = run("authenticators", "rewrap", "--old-key", str(tmp_path / "old_key"))
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
