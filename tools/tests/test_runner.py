from pathlib import Path

import pytest

from waybill_dev.bootstrap.environment import uv_stanza
from waybill_dev.checks.runner import Outcome, command, locks_agree, pins, run_all
from waybill_dev.commands.test import with_defaults
from waybill_dev.errors import LocalError
from waybill_dev.services.programs import ROLES

LOCK = """\
click==8.5.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via rich
rich==15.0.0 \\
    --hash=sha256:cc
uv==0.13.9 \\
    --hash=sha256:dd \\
    --hash=sha256:ee
    # via waybill (pyproject.toml:dev)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout with locks that agree."""
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "waybill"\ndependencies = ["rich>=15"]\n')
    for service in ROLES:
        folder = tmp_path / "services" / service
        folder.mkdir(parents=True)
        (folder / "requirements.lock").write_text(LOCK.partition("rich")[0])
        (folder / "pyproject.toml").write_text(f'[project]\nname = "waybill-{service}"\ndependencies = ["click>=8"]\n')
    return tmp_path


async def complaint(checkout: Path) -> str:
    return str(await locks_agree(checkout)())


async def test_locks_that_agree_pass(checkout: Path) -> None:
    assert await locks_agree(checkout)() is None


async def test_a_service_pinned_to_another_version_is_reported(checkout: Path) -> None:
    lock = checkout / "services" / "orders" / "requirements.lock"
    lock.write_text(lock.read_text().replace("8.5.1", "8.5.0"))
    assert "services/orders/requirements.lock and requirements.lock differ in click" in str(
        await locks_agree(checkout)()
    )


async def test_another_hash_is_reported(checkout: Path) -> None:
    lock = checkout / "services" / "orders" / "requirements.lock"
    lock.write_text(lock.read_text().replace("sha256:bb", "sha256:ff"))
    assert "differ in click" in await complaint(checkout)


async def test_a_requirement_that_was_not_locked_is_reported(checkout: Path) -> None:
    pyproject = checkout / "services" / "users" / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("click>=8", "click>=9"))
    assert "services/users/pyproject.toml asks for click>=9" in await complaint(checkout)


async def test_a_required_service_without_its_folder_is_reported(checkout: Path) -> None:
    (checkout / "pyproject.toml").write_text('[project]\nname = "waybill"\ndependencies = ["waybill-stock"]\n')
    assert "requires waybill-stock, services/stock/pyproject.toml is missing" in await complaint(checkout)


async def test_a_registrys_address_in_a_lock_is_reported(checkout: Path) -> None:
    lock = checkout / "requirements.lock"
    lock.write_text("--index-url https://registry.invalid/simple\n" + LOCK)
    assert "names a registry" in await complaint(checkout)


def test_a_pin_is_version_and_hashes(checkout: Path) -> None:
    assert pins(checkout / "requirements.lock")["rich"] == "rich==15.0.0 --hash=sha256:cc"


def test_only_uv_is_installed_before_uv() -> None:
    assert uv_stanza(LOCK).split() == ["uv==0.13.9", "\\", "--hash=sha256:dd", "\\", "--hash=sha256:ee"]
    with pytest.raises(LocalError, match="uv"):
        uv_stanza("click==1.0\n")


async def test_all_checks_run_even_if_one_fails(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    checks = [
        ("bad", command("-c", "import sys; sys.exit('this is wrong')", folder=tmp_path)),
        ("good", command("-c", "print('noise')", folder=tmp_path)),
    ]
    assert await run_all(checks, at_once=2, done=outcomes.append) is False
    assert {outcome.name: outcome.complaint for outcome in outcomes} == {"bad": "this is wrong", "good": None}


def test_by_default_tests_run_on_two_workers_without_the_slow_ones() -> None:
    chosen = with_defaults(["services/orders"], slow=False)
    assert chosen == [
        "-p",
        "waybill_dev.testing",
        "-n",
        "2",
        "--dist",
        "worksteal",
        "-m",
        "not slow",
        "services/orders",
    ]
    assert "-n" not in with_defaults(["-n0"], slow=False)
    assert "-m" not in with_defaults([], slow=True)
    assert with_defaults(["-m", "e2e"], slow=False).count("-m") == 1
