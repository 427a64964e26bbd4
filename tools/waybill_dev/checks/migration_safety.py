"""Prints the migrations that would break the version still running.

    python -m waybill_dev.checks.migration_safety CHECKOUT

During a rollout, and after a rollback, the old version runs on the new schema, so a migration may only expand it. This
check reads the operations of each migration and the SQL in its strings. It refuses changes that drop or narrow
something, and changes that lock a table while all its rows are read. A migration that drops what no version uses any
more gives its reason: `contracts = "reason"`. See docs/migrations.md.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

MARK = "contracts"
DROP = 'stop using it in one release, drop it in a later one, marked `contracts = "no version reads it since …"`'
NOT_NULL = "add it with a server default, or as nullable first: the running version writes no value for it"
NARROW = "add a new column, write both, move the readers, then drop the old one, each in a release of its own"
CHECK = "add it NOT VALID once every running version satisfies it, and VALIDATE CONSTRAINT in a later revision"
INDEX = "build it CONCURRENTLY, in `with op.get_context().autocommit_block()`: otherwise writers wait"
KEY = "CREATE UNIQUE INDEX CONCURRENTLY first, then ADD CONSTRAINT … USING INDEX"
ALTER = r"\bALTER\s+TABLE\s+(IF\s+EXISTS\s+)?(ONLY\s+)?"
ADD = ALTER + r"(?P<table>\w+)[^;]*?\bADD\s+(CONSTRAINT\s+\S+\s+)?"
SQL = (
    (r"\bDROP\s+(TABLE|COLUMN|(MATERIALIZED\s+)?VIEW|SCHEMA|TYPE|SEQUENCE|FUNCTION)\b", DROP),
    (r"\bTRUNCATE\b", DROP),
    (ALTER + r"\S+\s+DROP\s+(?!CONSTRAINT|COLUMN)", DROP),
    (r"\bRENAME\s+(?!CONSTRAINT)", NARROW),
    (r"\bDROP\s+DEFAULT\b", "leave it until no running version relies on it"),
    (r"\bSET\s+NOT\s+NULL\b", NOT_NULL),
    (r"\bADD\s+COLUMN\b(?=[^,;]*\bNOT\s+NULL\b)(?![^,;]*\b(DEFAULT|GENERATED)\b)", NOT_NULL),
    (r"\bALTER\s+(COLUMN\s+)?\S+\s+(SET\s+DATA\s+)?TYPE\b", NARROW),
)
# Harmless to a table that the same revision creates, because no version uses it yet.
SQL_ON_OLD_TABLES = (
    (ADD + r"(CHECK|FOREIGN\s+KEY)\b(?![^;]*\bNOT\s+VALID\b)", CHECK),
    (ADD + r"(UNIQUE|PRIMARY\s+KEY|EXCLUDE)\b(?!\s+USING\s+INDEX\b)", KEY),
    (r"\bCREATE\s+(UNIQUE\s+)?INDEX\s+(?!CONCURRENTLY)[^;]*?\bON\s+(ONLY\s+)?(?P<table>\w+)", INDEX),
)
# Alembic's operations with the keyword that makes each harmless. The table is the second argument.
OPERATIONS_ON_OLD_TABLES = {
    "create_check_constraint": ("postgresql_not_valid", CHECK),
    "create_foreign_key": ("postgresql_not_valid", CHECK),
    "create_index": ("postgresql_concurrently", INDEX),
    "create_unique_constraint": (None, KEY),
    "create_primary_key": (None, KEY),
    "create_exclude_constraint": (None, KEY),
}
# Alembic's operations with the keywords that make them harmful; without any they always are.
OPERATIONS: dict[str, tuple[frozenset[str], str]] = {
    "drop_table": (frozenset(), DROP),
    "drop_column": (frozenset(), DROP),
    "rename_table": (frozenset(), NARROW),
    "alter_column": (frozenset({"new_column_name", "type_"}), NARROW),
}


def complaints(checkout: Path) -> Iterator[str]:
    for file in sorted(checkout.glob("services/*/migrations/versions/*.py")):
        yield from complaints_about(file, checkout)


def complaints_about(file: Path, checkout: Path) -> Iterator[str]:
    module = ast.parse(file.read_text())
    if not _marked(module):
        for line, what, advice in _harmful(module):
            where = f"{file.relative_to(checkout)}:{line}"
            yield f"{where}: {what}: the running version breaks, or waits. Instead, {advice}."


def _marked(module: ast.Module) -> bool:
    """Whether the migration gives a reason for contracting, in more than one word."""
    return any(
        isinstance(statement, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == MARK for target in statement.targets)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        and len(statement.value.value.split()) > 1
        for statement in module.body
    )


def _harmful(module: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yields the line, the change, and what to do instead. `downgrade` is exempt: no version serves while it runs."""
    nodes = [
        node
        for statement in module.body
        if not (isinstance(statement, ast.FunctionDef) and statement.name == "downgrade")
        for node in ast.walk(statement)
    ]
    new = {table for node in nodes for table in _created_tables(node)}
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from _operation(node, node.func.attr, new)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for pattern, advice in (*SQL, *SQL_ON_OLD_TABLES):
                found = re.search(pattern, node.value, re.IGNORECASE)
                if found and found.groupdict().get("table") not in new:
                    yield node.lineno, " ".join(found.group().split()), advice


def _created_tables(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Attribute(attr="create_table"), args=[ast.Constant(value=str(name)), *_]):
            yield name
        case ast.Constant(value=str(text)):
            created = r"\bCREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)"
            yield from re.findall(created, text, re.IGNORECASE)


def _operation(call: ast.Call, name: str, new: set[str]) -> Iterator[tuple[int, str, str]]:
    words = {word.arg for word in call.keywords}
    if name in OPERATIONS_ON_OLD_TABLES:
        harmless, advice = OPERATIONS_ON_OLD_TABLES[name]
        table = call.args[1] if len(call.args) > 1 else None
        if harmless not in words and not (isinstance(table, ast.Constant) and table.value in new):
            yield call.lineno, name, advice
    if name in OPERATIONS:
        harmful, advice = OPERATIONS[name]
        if not harmful or harmful & words:
            yield call.lineno, name, advice
    refuses_null = any(
        word.arg == "nullable" and isinstance(word.value, ast.Constant) and word.value.value is False
        for node in ast.walk(call)
        if isinstance(node, ast.Call)
        for word in node.keywords
    )
    if name == "alter_column" and refuses_null:
        yield call.lineno, "alter_column to NOT NULL", NOT_NULL
    if name == "add_column" and refuses_null and not _has_default(call):
        yield call.lineno, "add_column that is NOT NULL without a server default", NOT_NULL


def _has_default(call: ast.Call) -> bool:
    return any(
        (isinstance(node.func, ast.Attribute) and node.func.attr in {"Identity", "Computed"})
        or any(word.arg == "server_default" for word in node.keywords)
        for node in ast.walk(call)
        if isinstance(node, ast.Call)
    )


if __name__ == "__main__":
    found = list(complaints(Path(sys.argv[1])))
    print("\n".join(found))
    sys.exit(1 if found else 0)
