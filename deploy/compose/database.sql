-- The role and the database named by :service, closed to the others; the password is the file of that name. Run by psql
-- at every `up`, once per service (waybill_dev.compose.secrets); safe to repeat. \gexec runs what a query returns:
-- neither role nor database has a CREATE … IF NOT EXISTS.
\set file /run/secrets/ :service
\set password `cat :file`

SELECT format('CREATE ROLE %I', :'service')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'service') \gexec

ALTER ROLE :"service" LOGIN PASSWORD :'password';

SELECT format('CREATE DATABASE %I OWNER %I', :'service', :'service')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'service') \gexec

REVOKE ALL ON DATABASE :"service" FROM PUBLIC;
