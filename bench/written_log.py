"""Bytes of PostgreSQL's write-ahead log, counted by its records with the extension pg_walinspect."""

import asyncpg

# Only of transactions that wrote to this database: other databases of the server share the log. Without images of whole
# pages, which depend on the time of the last checkpoint, and the records that hold nothing else.
_BYTES = """
    WITH records AS (
        SELECT * FROM pg_get_wal_records_info($1::text::pg_lsn, $2::text::pg_lsn) WHERE record_type NOT LIKE 'FPI%'),
    ours AS (
        SELECT DISTINCT records.xid FROM records
        JOIN pg_get_wal_block_info($1::text::pg_lsn, $2::text::pg_lsn) AS block USING (start_lsn)
        WHERE block.reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
    SELECT coalesce(sum(record_length - fpi_length), 0)::bigint FROM records JOIN ours USING (xid)
    WHERE xid <> '0'::xid"""
# Autovacuum would add its statistics.
_NO_AUTOVACUUM = """
    SELECT format('ALTER TABLE %s SET (autovacuum_enabled = off)', oid::regclass) FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""


class WrittenLog:
    """Counts from `begin` to `read`."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._from = ""

    async def prepare(self) -> None:
        """Raises `asyncpg.PostgresError` if the server has no pg_walinspect (PostgreSQL 15, contrib)."""
        await self._connection.execute("CREATE EXTENSION pg_walinspect")
        for row in await self._connection.fetch(_NO_AUTOVACUUM):
            await self._connection.execute(row[0])

    async def begin(self) -> None:
        self._from = await self._connection.fetchval("SELECT pg_current_wal_insert_lsn()::text")

    async def read(self) -> int:
        # What was committed is flushed, also where a commit does not wait for the disk.
        until = await self._connection.fetchval("SELECT pg_current_wal_flush_lsn()::text")
        counted: int = await self._connection.fetchval(_BYTES, self._from, until)
        return counted
