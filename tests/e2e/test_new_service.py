"""A service made by `./dev new` works at once: checked, tested, booted, and its own event reaches its own consumer."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from common.testing.plugin import eventually
from waybill_dev.base.state import find_state

pytestmark = pytest.mark.slow
CHECKOUT = find_state().checkout


def attempt(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")}
    return subprocess.run(  # noqa: S603 - git and our own ./dev
        words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def run(folder: Path, *words: str) -> str:
    done = attempt(folder, *words)
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """Of the last commit, for nothing else can be cloned."""
    uncommitted = run(CHECKOUT, "git", "status", "--porcelain")
    assert not uncommitted, f"commit these first, the clone would lack them:\n{uncommitted}"
    folder = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(CHECKOUT), str(folder))
    if (cache := CHECKOUT / ".mypy_cache").is_dir():  # what has not changed need not be checked again
        shutil.copytree(cache, folder / ".mypy_cache")
    yield folder
    run(folder, "./dev", "down")


async def test_a_new_service_works_at_once(clone: Path) -> None:
    printed = run(clone, "./dev", "new", "payments")
    assert "services/payments" in printed
    refused = attempt(clone, "./dev", "new", "payments")
    assert (refused.returncode, refused.stderr) == (1, "./dev: there is a service payments already\n")
    run(clone, "./dev", "check")
    run(clone, "./dev", "test", "-q", "services/payments", "tests/deploy/test_services.py", "tests/deploy/test_k8s.py")
    run(clone, "./dev", "up", "--detach")
    status = json.loads(run(clone, "./dev", "status", "--json"))
    assert {process["role"] for process in status["services"]["payments"]["processes"]} == {"api", "relay", "consume"}
    async with httpx.AsyncClient(base_url=status["gateway"], timeout=20) as client:
        client.headers.update(await signed_in(client))
        created = await client.post("/payments", json={"name": "First"})
        assert created.status_code == 201, created.text
        assert created.json()["processed_at"] is None

        async def processed() -> bool:
            item = (await client.get(created.headers["Location"])).raise_for_status().json()
            return item["processed_at"] is not None

        await eventually(processed, within=20)


async def signed_in(client: httpx.AsyncClient) -> dict[str, str]:
    """The header of a person who has just signed up."""
    email, password = f"{secrets.token_hex(8)}@waybill.example", secrets.token_urlsafe(18)
    person = {"name": "Ada Lovelace", "email": email, "password": password}
    (await client.post("/users", json=person)).raise_for_status()
    form = {"grant_type": "password", "client_id": "web", "username": email, "password": password}
    tokens = (await client.post("/token", data=form)).raise_for_status().json()
    return {"Authorization": f"Bearer {tokens['access_token']}"}
