"""The lint of the services' layers refuses imports that were once found to pass, and modules that are in no layer."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from waybill_dev.base.state import find_state
from waybill_dev.commands.check import IMPORT_LINTER
from waybill_dev.services.programs import ROLES

CHECKOUT = find_state().checkout
SOURCES = ("libs/common/src", *(f"services/{service}/src" for service in ROLES), "tools")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, for a test to change and put back."""
    copy = tmp_path_factory.mktemp("sources")
    shutil.copy(CHECKOUT / "pyproject.toml", copy)
    for source in SOURCES:
        shutil.copytree(CHECKOUT / source, copy / source, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    return copy


@contextmanager
def changed(file: Path, line: str) -> Iterator[None]:
    before = file.read_text() if file.exists() else None
    file.write_text(f"{before or ''}\n{line}\n")
    try:
        yield
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before)


def lint(sources: Path) -> tuple[int, str]:
    path = os.pathsep.join(str(sources / source) for source in SOURCES)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_LINTER],
        cwd=sources,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_sources_as_they_are_pass(sources: Path) -> None:
    code, report = lint(sources)
    assert code == 0, report


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("notifier.delivery.worker", "fastapi"),
        ("notifier.delivery.worker", "notifier.webhooks.routes"),
        ("notifier.mail.smtp", "notifier.routes"),
        ("notifier.webhooks.queue", "notifier.webhooks.routes"),
        ("notifier.webhooks.routes", "notifier.consumers"),
        ("auth.keys.keyring", "starlette"),
        ("auth.oauth.grants", "starlette"),
        ("users.credentials.passwords", "fastapi"),
        ("auth.oauth.users_client", "fastapi"),
    ],
)
def test_an_illegal_import_is_refused_by_name(sources: Path, module: str, imported: str) -> None:
    service = module.partition(".")[0]
    file = sources / "services" / service / "src" / f"{module.replace('.', '/')}.py"
    assert file.exists()
    with changed(file, f"import {imported}"):
        code, report = lint(sources)
    assert code == 1
    assert any(module in line and imported in line for line in report.splitlines()), report


def test_a_module_that_is_in_no_layer_is_refused_by_name(sources: Path) -> None:
    with changed(sources / "services/orders/src/orders/miscellany.py", "x = 1"):
        code, report = lint(sources)
    assert code == 1
    assert "orders.miscellany is in no layers" in report
