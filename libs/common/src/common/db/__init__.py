"""PostgreSQL: engine and transactions, the driver's pool, NOTIFY, migrations, and the tables every service shares."""
