"""INSERT of any number of rows with one array per column: the same statement for one row as for a hundred.

SQLAlchemy compiles it once and PostgreSQL plans it once; with VALUES lists each number of rows is another statement.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import FromClause, Table, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert


def insert_rows(table: FromClause, *names: str) -> Insert:
    """An INSERT into these columns; its parameters are one array per column, by name (see `columns_of`)."""
    columns = [table.c[name] for name in names]
    arrays = [bindparam(source.name, type_=ARRAY(source.type)) for source in columns]
    rows = func.unnest(*arrays).table_valued(*(column(source.name, source.type) for source in columns))
    return insert(cast("Table", table)).from_select(columns, select(*rows.render_derived(name="given").c))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The parameters of `insert_rows` from at least one row."""
    return {name: [row[name] for row in rows] for name in rows[0]}
