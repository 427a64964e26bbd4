"""Prints the migrations that would break the version still running.

    python -m waybill_dev.checks.migration_safety CHECKOUT

While a service is rolled out, and after it is rolled back, the old version works with the new database. So a migration
only expands: it is read as source, its operations and the SQL in its strings, and what takes away, narrows, or keeps
everybody from a table for as long as it is read through is refused. A revision that does so in its turn, once no
version uses the thing any more, says why: `contracts = "reason"`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

MARK = "contracts"
OUT = 'stop using it in one release, drop it in a later one, marked `contracts = "no version reads it since …"`'
NULLS = "add it with a server default, or nullable first: the version that runs writes no value for it"
NARROW = "add a new column, write both, move the readers, then drop the old one, each in a release of its own"
CHECKED = "add it NOT VALID once every version that runs keeps it, and VALIDATE CONSTRAINT in a later revision"
BUILT = "build it CONCURRENTLY, in `with op.get_context().autocommit_block()`: writers wait for any other"
KEY = "CREATE UNIQUE INDEX CONCURRENTLY first, then ADD CONSTRAINT … USING INDEX"
ALTER = r"\bALTER\s+TABLE\s+(IF\s+EXISTS\s+)?(ONLY\s+)?"
ADD = ALTER + r"(?P<table>\w+)[^;]*?\bADD\s+(CONSTRAINT\s+\S+\s+)?"
SQL = (
    (r"\bDROP\s+(TABLE|COLUMN|(MATERIALIZED\s+)?VIEW|SCHEMA|TYPE|SEQUENCE|FUNCTION)\b", OUT),
    (r"\bTRUNCATE\b", OUT),
    (ALTER + r"\S+\s+DROP\s+(?!CONSTRAINT|COLUMN)", OUT),
    (r"\bRENAME\s+(?!CONSTRAINT)", NARROW),
    (r"\bDROP\s+DEFAULT\b", "leave it until no version that runs counts on it"),
    (r"\bSET\s+NOT\s+NULL\b", NULLS),
    (r"\bADD\s+COLUMN\b(?=[^,;]*\bNOT\s+NULL\b)(?![^,;]*\b(DEFAULT|GENERATED)\b)", NULLS),
    (r"\bALTER\s+(COLUMN\s+)?\S+\s+(SET\s+DATA\s+)?TYPE\b", NARROW),
)
# Harmless to a table that the same revision makes: nobody uses it yet.
SQL_ON_OLD_TABLES = (
    (ADD + r"(CHECK|FOREIGN\s+KEY)\b(?![^;]*\bNOT\s+VALID\b)", CHECKED),
    (ADD + r"(UNIQUE|PRIMARY\s+KEY|EXCLUDE)\b(?!\s+USING\s+INDEX\b)", KEY),
    (r"\bCREATE\s+(UNIQUE\s+)?INDEX\s+(?!CONCURRENTLY)[^;]*?\bON\s+(ONLY\s+)?(?P<table>\w+)", BUILT),
)
# Of Alembic, with the word that makes each harmless; the table is the second argument.
OPERATIONS_ON_OLD_TABLES = {
    "create_check_constraint": ("postgresql_not_valid", CHECKED),
    "create_foreign_key": ("postgresql_not_valid", CHECKED),
    "create_index": ("postgresql_concurrently", BUILT),
    "create_unique_constraint": (None, KEY),
    "create_primary_key": (None, KEY),
    "create_exclude_constraint": (None, KEY),
}
# Of Alembic, with the words that make them harmful; none means always.
OPERATIONS: dict[str, tuple[frozenset[str], str]] = {
    "drop_table": (frozenset(), OUT),
    "drop_column": (frozenset(), OUT),
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
    """Whether it says why it may: a reason, not an empty text."""
    return any(
        isinstance(statement, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == MARK for target in statement.targets)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        and len(statement.value.value.split()) > 1
        for statement in module.body
    )


def _harmful(module: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, what, and what to do instead. `downgrade` is another matter: nobody runs it beside a running version."""
    nodes = [
        node
        for statement in module.body
        if not (isinstance(statement, ast.FunctionDef) and statement.name == "downgrade")
        for node in ast.walk(statement)
    ]
    new = {table for node in nodes for table in _made(node)}
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from _operation(node, node.func.attr, new)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for pattern, advice in (*SQL, *SQL_ON_OLD_TABLES):
                found = re.search(pattern, node.value, re.IGNORECASE)
                if found and found.groupdict().get("table") not in new:
                    yield node.lineno, " ".join(found.group().split()), advice


def _made(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Attribute(attr="create_table"), args=[ast.Constant(value=str(name)), *_]):
            yield name
        case ast.Constant(value=str(text)):
            made = r"\bCREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)"
            yield from re.findall(made, text, re.IGNORECASE)


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
        yield call.lineno, "alter_column to NOT NULL", NULLS
    if name == "add_column" and refuses_null and not _has_default(call):
        yield call.lineno, "add_column that is NOT NULL without a server default", NULLS


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
