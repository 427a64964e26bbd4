"""pytest plugin: the whole system, booted once for all tests that ask for `stack`.

It is a stack of its own, with its own servers: tests stop and kill its processes, while other tests go on using
the servers that `./dev test` booted for them. Tests that use it take turns, whichever worker they run in.
"""

import fcntl
import json
import os
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from waybill_dev.base.state import find_state

STACK_DIR = "WAYBILL_TEST_STACK_DIR"
STACK_OWNER = "WAYBILL_TEST_STACK_OWNER"
# What a test needs to see within seconds; addresses that none but tests use.
SETTINGS = {
    "WAYBILL_CORS_ORIGINS": '["https://shop.example"]',
    "WAYBILL_RETRY_DELAYS": "1,2,3",
    "WAYBILL_KEY_PENDING_SECONDS": "8",  # a second more than all services need to know of a key
}


def stack_folder() -> Path:
    return Path(os.environ.get(STACK_DIR) or find_state().checkout / ".dev" / "test" / "stack")


def webhook_port() -> int:
    """Of a receiver on loopback: the same for each worker and process, another in another checkout."""
    return 20_000 + zlib.crc32(bytes(stack_folder())) % 8_000


class StackUnderTest:
    """The running system, and what an operator may do to it by `./dev`."""

    def __init__(self, folder: Path, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        """`variables` are for the services' environment, beside `SETTINGS`."""
        self.checkout = find_state().checkout
        self.folder = folder
        own = {"WAYBILL_WEBHOOK_ALLOW": f"127.0.0.1:{webhook_port()}", "WAYBILL_STATE_DIR": str(folder)}
        self._environment = {**os.environ, **SETTINGS, **variables, **own}

    @property
    def status(self) -> dict[str, Any]:
        """`./dev status --json`, as it is now."""
        status: dict[str, Any] = json.loads(self.dev("status", "--json"))
        return status

    @cached_property
    def addresses(self) -> dict[str, Any]:
        """`status` as it was when first asked for: what is asked for by each test, and stays. Its pids do not."""
        return self.status

    def dev(self, *words: str) -> str:
        """What `./dev WORDS` printed. Raises CalledProcessError with its stderr as a note."""
        done = subprocess.run(
            [self.checkout / "dev", *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            error = subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
            error.add_note(done.stderr)
            raise error
        return done.stdout


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the whole system come first: they take turns, and a worker that waits for its turn does nothing else."""
    items.sort(key=lambda item: "stack" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def stack(booted_stack: StackUnderTest) -> Iterator[StackUnderTest]:
    """The whole system, ready, and this test's alone: tests of other workers that want it wait."""
    with (booted_stack.folder / "turn.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield booted_stack


@pytest.fixture(scope="session")
def booted_stack() -> Iterator[StackUnderTest]:
    """The whole system, ready. `./dev test` stops it at the end; outside of it, this fixture does."""
    folder = stack_folder()
    folder.mkdir(parents=True, exist_ok=True)
    under_test = StackUnderTest(folder)
    with (folder / "boot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        under_test.dev("up", "--detach", "--owner", os.environ.get(STACK_OWNER) or str(os.getpid()))
    yield under_test
    if STACK_DIR not in os.environ:
        under_test.dev("down")
