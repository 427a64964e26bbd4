"""`./dev migration`: the next migration is generated from the models, and applying it makes them agree."""

import ast
import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from common.testing.plugin import MakeDatabase
from waybill_dev.base.state import find_state
from waybill_dev.services.programs import ROLES

SERVICES = find_state().checkout / "services"
ENV = """
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from common.db.database import NAMING
from common.db.migrations import run_migrations

metadata = sa.MetaData(naming_convention=NAMING)
sa.Table(
    "returns",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("order_id", sa.Uuid, nullable=False, index=True),
    sa.Column("tags", ARRAY(sa.Text), nullable=False),
)
run_migrations([metadata])
"""
EMPTY = """
def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
"""


async def generate(folder: Path, url: str, *words: str) -> tuple[str, str]:
    """Name and text of the file that was written, both empty where none was. Alembic needs a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "common.db.new_migration", str(folder), url, *words), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    if not (path := printed.decode().strip()):
        return "", ""
    assert Path(path).parent == folder / "versions"
    return Path(path).name, await asyncio.to_thread(Path(path).read_text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service's migrations that have not created any of its tables yet."""
    migrations = tmp_path / "migrations"
    (migrations / "versions").mkdir(parents=True)
    (migrations / "env.py").write_text(ENV)
    return migrations


async def test_the_generated_migrations_make_models_and_database_agree(
    folder: Path, make_database: MakeDatabase
) -> None:
    url = await make_database(folder)
    name, text = await generate(folder, url, "Take things back: the table")
    assert name == "0001_take_things_back_the_table.py"
    assert ast.get_docstring(ast.parse(text)) == "Take things back: the table"
    assert "from sqlalchemy.dialects import postgresql" in text
    assert await generate(folder, url, "Nothing changed") == ("", "")
    (folder / "env.py").write_text(ENV.replace('"tags", ARRAY(sa.Text)', '"reason", sa.Text'))
    name, text = await generate(folder, url, "Say why")
    assert name == "0002_say_why.py"
    assert "down_revision = '0001'" in text
    assert await generate(folder, url, "Nothing changed") == ("", "")


async def test_an_empty_migration_is_written_where_one_is_asked_for(folder: Path, make_database: MakeDatabase) -> None:
    name, text = await generate(folder, await make_database(folder), "Fill me in", "--empty")
    assert name == "0001_fill_me_in.py"
    assert "sqlalchemy" not in text
    assert text.endswith(EMPTY)


@pytest.mark.parametrize("service", ROLES)
async def test_every_service_can_have_its_next_migration(
    service: str, tmp_path: Path, make_database: MakeDatabase
) -> None:
    copy = tmp_path / "migrations"
    shutil.copytree(SERVICES / service / "migrations", copy, ignore=shutil.ignore_patterns("__pycache__"))
    newest = max(int(file.name[:4]) for file in copy.glob("versions/*.py"))
    name, _ = await generate(copy, await make_database(copy), "Fill me in", "--empty")
    assert name == f"{newest + 1:04}_fill_me_in.py"
