"""Five faults, planted one at a time, are found in the history of a struck backbone."""

import shutil
import subprocess
from pathlib import Path

import pytest

from common.testing.plugin import MakeDatabase

from .backbone import MIGRATIONS
from .conftest import Report
from .struck_backbone import Shape, struck_backbone

pytestmark = pytest.mark.slow
EVENTS = 1500
SEED = 1
CHECKOUT = Path(__file__).parents[2]
MUTANTS = Path(__file__).with_name("mutants")
FOUND = {
    "acknowledges-before-the-commit": "acknowledged before its outcome was stored",
    "reads-by-a-cursor": "never left the outbox",
    "publishes-without-a-lock": "published again after it left the outbox",
    "closes-a-row-when-it-is-replayed": "lost by shop.inbound",
    "takes-an-unknown-aggregate-at-any-version": "processed before its predecessor",
}
"""By each mutant, a rule that it breaks."""


def patched(mutant: str, folder: Path) -> Path:
    """A copy of `common` with the fault."""
    source = folder / "libs" / "common" / "src"
    shutil.copytree(CHECKOUT / "libs" / "common" / "src", source)
    subprocess.run(["patch", "-p1", "-i", MUTANTS / f"{mutant}.patch"], cwd=folder, check=True)  # noqa: S603, S607 - ours
    return source


@pytest.mark.parametrize("mutant", FOUND)
async def test_a_planted_fault_is_found(
    mutant: str, make_database: MakeDatabase, amqp_url: str, tmp_path: Path, report: Report
) -> None:
    source = patched(mutant, tmp_path)
    shape = Shape(relays=2, partitions=1, consumers=2, queues=1, source=source)
    async with struck_backbone(shape, await make_database(MIGRATIONS), amqp_url, tmp_path) as backbone:
        await backbone.record(EVENTS, seed=SEED, every=EVENTS // 12)
        await backbone.repair()
        checked = await backbone.checked(tmp_path / "history")
    rules = {violation.rule for violation in checked.violations}
    report(f"{mutant}: {len(checked.violations)} violations in {checked.events} events")
    assert FOUND[mutant] in rules
