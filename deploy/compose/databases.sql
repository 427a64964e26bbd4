-- One role and one database per service, each closed to the others. Run by psql at every `up`; safe to repeat.
-- \gexec runs what a query returns: neither role nor database has a CREATE … IF NOT EXISTS.
\set ON_ERROR_STOP on
\set QUIET on

\set service auth
\ir database.sql
\set service users
\ir database.sql
\set service orders
\ir database.sql
\set service notifier
\ir database.sql
