import asyncpg
import pytest

from common.outages import is_outage


@pytest.mark.parametrize(
    "state",
    [
        asyncpg.ObjectNotInPrerequisiteStateError,  # "database … is not currently accepting connections"
        asyncpg.AdminShutdownError,
        asyncpg.CannotConnectNowError,
        asyncpg.DeadlockDetectedError,
        asyncpg.TooManyConnectionsError,
    ],
)
def test_what_passes_by_itself_is_an_outage(state: type[Exception]) -> None:
    assert is_outage(state("…"))


@pytest.mark.parametrize("state", [asyncpg.UndefinedTableError, asyncpg.UniqueViolationError, asyncpg.DataError])
def test_what_a_retry_cannot_mend_is_none(state: type[Exception]) -> None:
    assert not is_outage(state("…"))
