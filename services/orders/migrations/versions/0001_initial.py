from alembic import op

from common.db import shared_tables

revision = "0001"
down_revision = None

TABLES = (
    """CREATE TABLE products (
    sku text COLLATE "C" CONSTRAINT pk_products PRIMARY KEY,
    name text NOT NULL,
    price_amount bigint NOT NULL,
    price_currency text NOT NULL,
    active boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT ck_products_sku CHECK (sku ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    CONSTRAINT ck_products_name CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT ck_products_price_amount CHECK (price_amount BETWEEN 0 AND 1000000000000),
    CONSTRAINT ck_products_price_currency CHECK (price_currency ~ '^[A-Z]{3}$')
)""",
    """CREATE TABLE orders (
    id uuid CONSTRAINT pk_orders PRIMARY KEY,
    customer_id uuid NOT NULL,
    status text NOT NULL,
    total_amount bigint NOT NULL,
    currency text NOT NULL,
    note text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    idempotency_key text,
    request_hash bytea,
    CONSTRAINT ck_orders_status CHECK (status IN ('placed', 'confirmed', 'shipped', 'delivered', 'cancelled')),
    CONSTRAINT ck_orders_version CHECK ((status = 'placed') = (version = 1) AND version >= 1),
    CONSTRAINT ck_orders_total_amount CHECK (total_amount BETWEEN 0 AND 9007199254740991),
    CONSTRAINT ck_orders_currency CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT ck_orders_note CHECK (char_length(note) <= 1000),
    CONSTRAINT ck_orders_idempotency_key CHECK ((idempotency_key IS NULL) = (request_hash IS NULL))
)""",
    "CREATE INDEX ix_orders_customer_id ON orders (customer_id, id)",
    "CREATE INDEX ix_orders_status ON orders (status, id)",
    """CREATE UNIQUE INDEX uq_orders_customer_id_idempotency_key ON orders (customer_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL""",
    """CREATE TABLE order_lines (
    order_id uuid NOT NULL CONSTRAINT fk_order_lines_order_id_orders REFERENCES orders (id),
    position smallint NOT NULL,
    sku text NOT NULL,
    name text NOT NULL,
    quantity integer NOT NULL,
    unit_amount bigint NOT NULL,
    CONSTRAINT pk_order_lines PRIMARY KEY (order_id, position),
    CONSTRAINT ck_order_lines_position CHECK (position BETWEEN 1 AND 100),
    CONSTRAINT ck_order_lines_quantity CHECK (quantity BETWEEN 1 AND 1000),
    CONSTRAINT ck_order_lines_unit_amount CHECK (unit_amount BETWEEN 0 AND 1000000000000)
)""",
    """CREATE TABLE order_timeline (
    order_id uuid NOT NULL CONSTRAINT fk_order_timeline_order_id_orders REFERENCES orders (id),
    version integer NOT NULL,
    type text NOT NULL,
    occurred_at timestamptz NOT NULL,
    data jsonb NOT NULL,
    CONSTRAINT pk_order_timeline PRIMARY KEY (order_id, version),
    CONSTRAINT ck_order_timeline_version CHECK (version >= 1)
)""",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    shared_tables.create_outbox(op)


def downgrade() -> None:
    shared_tables.drop_outbox(op)
    op.execute("DROP TABLE order_timeline, order_lines, orders, products")
