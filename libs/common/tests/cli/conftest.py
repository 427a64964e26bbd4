import pytest

from common.db.database import Database
from common.settings import ServiceSettings

from .shop import Shop


@pytest.fixture
def shop(settings: ServiceSettings, database: Database) -> Shop:
    return Shop(settings, database)
