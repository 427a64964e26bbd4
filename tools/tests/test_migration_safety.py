from pathlib import Path

import pytest

from waybill_dev.base.state import find_state
from waybill_dev.checks.migration_safety import complaints

HEAD = "import sqlalchemy as sa\nfrom alembic import op\n\nrevision = '0002'\n"


def written(folder: Path, upgrade: str, *, mark: str = "", downgrade: str = "pass") -> list[str]:
    file = folder / "services" / "orders" / "migrations" / "versions" / "0002_next.py"
    file.parent.mkdir(parents=True)
    file.write_text(f"{HEAD}{mark}\n\ndef upgrade():\n    {upgrade}\n\ndef downgrade():\n    {downgrade}\n")
    return list(complaints(folder))


@pytest.mark.parametrize(
    "upgrade",
    [
        "op.drop_column('orders', 'note')",
        "op.drop_table('orders')",
        "op.rename_table('orders', 'sales')",
        "op.alter_column('orders', 'note', new_column_name='remark')",
        "op.alter_column('orders', 'note', type_=sa.String(10))",
        "op.alter_column('orders', 'note', nullable=False)",
        "op.add_column('orders', sa.Column('channel', sa.Text, nullable=False))",
        "op.execute('ALTER TABLE orders DROP COLUMN note')",
        "op.execute('alter table orders drop note')",
        "op.execute('DROP TABLE orders')",
        "op.execute('ALTER TABLE orders RENAME COLUMN note TO remark')",
        "op.execute('ALTER TABLE orders RENAME TO sales')",
        "op.execute('ALTER TABLE orders ALTER COLUMN note SET NOT NULL')",
        "op.execute('ALTER TABLE orders ALTER COLUMN version TYPE smallint')",
        "op.execute('ALTER TABLE orders ALTER version SET DATA TYPE smallint')",
        "op.execute('ALTER TABLE orders ADD COLUMN channel text NOT NULL')",
        "op.execute('ALTER TABLE IF EXISTS orders DROP note')",
        "op.execute('ALTER TABLE orders RENAME note TO remark')",
        'op.execute(\'ALTER TYPE state RENAME VALUE "new" TO "placed"\')',
        "op.execute('ALTER TABLE orders ALTER COLUMN note DROP DEFAULT')",
        "op.execute('TRUNCATE orders')",
        "op.execute('DROP SEQUENCE numbers')",
        "op.execute(f'ALTER TABLE {TABLE} DROP COLUMN note')",
        "op.create_check_constraint('total_is_positive', 'orders', 'total > 0')",
        "op.create_foreign_key('fk_orders_channels', 'orders', 'channels', ['channel'], ['id'])",
        "op.create_unique_constraint('uq_orders_number', 'orders', ['number'])",
        "op.create_index('ix_orders_note', 'orders', ['note'])",
        "op.execute('ALTER TABLE orders ADD CONSTRAINT total_is_positive CHECK (total > 0)')",
        "op.execute('ALTER TABLE orders ADD FOREIGN KEY (channel) REFERENCES channels')",
        "op.execute('ALTER TABLE orders ADD UNIQUE (number)')",
        "op.execute('CREATE INDEX ix_orders_note ON orders (note)')",
        "op.execute('CREATE UNIQUE INDEX uq_orders_number ON orders (number)')",
    ],
)
def test_a_change_that_breaks_the_running_version_is_refused(upgrade: str, tmp_path: Path) -> None:
    (complaint,) = written(tmp_path, upgrade)
    assert complaint.startswith("services/orders/migrations/versions/0002_next.py:8: ")
    assert "Instead, " in complaint


@pytest.mark.parametrize(
    "upgrade",
    [
        "op.add_column('orders', sa.Column('channel', sa.Text))",
        "op.add_column('orders', sa.Column('channel', sa.Text, nullable=False, server_default='web'))",
        "op.add_column('orders', sa.Column('number', sa.BigInteger, sa.Identity(), nullable=False))",
        "op.create_table('returns', sa.Column('id', sa.Uuid, nullable=False))",
        "op.execute(\"ALTER TABLE orders ADD COLUMN channel text NOT NULL DEFAULT 'web'\")",
        "op.execute('ALTER TABLE orders DROP CONSTRAINT ck_orders_note')",
        "op.execute('ALTER TABLE orders ALTER COLUMN note DROP NOT NULL')",
        "op.execute('ALTER TABLE orders RENAME CONSTRAINT ck_note TO ck_orders_note')",
        "op.create_check_constraint('total_is_positive', 'orders', 'total > 0', postgresql_not_valid=True)",
        "op.execute('ALTER TABLE orders ADD CONSTRAINT total_is_positive CHECK (total > 0) NOT VALID')",
        "op.execute('ALTER TABLE orders VALIDATE CONSTRAINT total_is_positive')",
        "op.execute('ALTER TABLE orders ADD CONSTRAINT uq_number UNIQUE USING INDEX uq_orders_number')",
        "op.create_index('ix_orders_note', 'orders', ['note'], postgresql_concurrently=True)",
        "op.execute('CREATE INDEX CONCURRENTLY ix_orders_note ON orders (note)')",
        "op.create_table('returns', sa.Column('id', sa.Uuid)); op.create_index('ix_id', 'returns', ['id'])",
        "op.execute('CREATE TABLE returns (id uuid)'); op.execute('CREATE INDEX ix_id ON returns (id)')",
    ],
)
def test_a_change_that_only_adds_passes(upgrade: str, tmp_path: Path) -> None:
    assert written(tmp_path, upgrade, downgrade="op.drop_table('returns')") == []


def test_a_migration_that_gives_a_reason_may_contract(tmp_path: Path) -> None:
    assert written(tmp_path, "op.drop_table('old')", mark="contracts = 'no version reads it since 0.3'") == []


def test_a_mark_without_a_reason_is_ignored(tmp_path: Path) -> None:
    assert len(written(tmp_path, "op.drop_table('old')", mark="contracts = ' '")) == 1


def test_all_committed_migrations_only_expand() -> None:
    assert list(complaints(find_state().checkout)) == []
