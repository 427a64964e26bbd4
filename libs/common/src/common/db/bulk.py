"""Statements over any number of rows, each column an array: the same text for one row as for a hundred.

So SQLAlchemy compiles it once and PostgreSQL plans it once, which a list of values as long as the rows does not allow.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import FromClause, Table, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert


def insert_rows(table: FromClause, *names: str) -> Insert:
    """Inserts into these columns; the statement takes an array for each, by its name (see `columns_of`)."""
    columns = [table.c[name] for name in names]
    arrays = [bindparam(given.name, type_=ARRAY(given.type)) for given in columns]
    rows = func.unnest(*arrays).table_valued(*(column(given.name, given.type) for given in columns))
    return insert(cast("Table", table)).from_select(columns, select(*rows.render_derived(name="given").c))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """At least one row, as such a statement takes them."""
    return {name: [row[name] for row in rows] for name in rows[0]}
