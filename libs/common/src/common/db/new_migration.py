"""Writes a service's next migration, generated from what its models have and its migrations do not create.

    python -m common.db.new_migration FOLDER DATABASE_URL MESSAGE [--empty]

Prints the file's path. Prints nothing when models and migrations agree, unless `--empty` asks for a file to fill in.
Alembic compares tables, columns, keys and indexes; CHECK constraints and expressions have to be written by hand.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import alembic.command
from alembic.operations import MigrationScript

from common.db.migrations import config, upgrade
from common.db.revisions import newest_revision

TEMPLATE = Path(__file__).with_name("migration.py.mako")


def write_migration(folder: Path, url: str, message: str, *, empty: bool = False) -> Path | None:
    """Writes `NNNN_message.py` into the folder's `versions`. The database at `url` is migrated to the newest revision.

    Returns None, and writes nothing, when there is nothing to generate and no `empty` file was asked for.
    """
    upgrade(folder, url)

    def keep(_context: Any, _revision: Any, scripts: list[MigrationScript]) -> None:
        if not empty and all(script.upgrade_ops is None or script.upgrade_ops.is_empty() for script in scripts):
            scripts.clear()

    with tempfile.TemporaryDirectory() as scripts:
        # Alembic looks for the template where env.py is; so no service has to keep a copy.
        shutil.copy(TEMPLATE, Path(scripts) / "script.py.mako")
        shutil.copy(folder / "env.py", scripts)
        alembic_config = config(Path(scripts), url)
        alembic_config.cmd_opts = argparse.Namespace(quiet=True)
        alembic_config.set_main_option("version_locations", str(folder / "versions"))
        alembic_config.set_main_option("path_separator", "newline")
        alembic_config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
        script = alembic.command.revision(
            alembic_config,
            message,
            autogenerate=not empty,
            rev_id=f"{int(newest_revision(folder) or 0) + 1:04}",
            process_revision_directives=keep,
        )
    # Alembic returns a list only for several scripts at once, and never asks for those here.
    return Path(script.path) if script and not isinstance(script, list) else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.db.new_migration")
    parser.add_argument("folder", type=Path)
    parser.add_argument("url")
    parser.add_argument("message")
    parser.add_argument("--empty", action="store_true")
    arguments = parser.parse_args()
    written = write_migration(arguments.folder, arguments.url, arguments.message, empty=arguments.empty)
    if written is not None:
        print(written)  # noqa: T201 - its output


if __name__ == "__main__":
    main()
