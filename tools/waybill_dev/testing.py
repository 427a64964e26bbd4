"""pytest plugin: boots the whole system once for all tests that use the fixture `stack`.

The stack has its own servers: its tests stop and kill processes, while other tests keep using the servers that
`./dev test` booted. Tests that use the stack run one at a time, across all workers.
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
# Short delays, so that tests see their effect within seconds, and an origin that only tests use.
SETTINGS = {
    "WAYBILL_CORS_ORIGINS": '["https://shop.example"]',
    "WAYBILL_RETRY_DELAYS": "1,2,3",
    "WAYBILL_UNVERIFIED_MAILS": "1000",  # most tests do not verify the address of their customer
    "WAYBILL_KEY_PENDING_SECONDS": "8",  # all services know a new key after 7 s
}


def stack_folder() -> Path:
    return Path(os.environ.get(STACK_DIR) or find_state().checkout / ".dev" / "test" / "stack")


def webhook_port() -> int:
    """The port of a receiver on loopback: the same in all workers, and another one in each checkout."""
    return 20_000 + zlib.crc32(bytes(stack_folder())) % 8_000


class StackUnderTest:
    """The running system, operated by `./dev`."""

    def __init__(self, folder: Path, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        """`variables` are added to `SETTINGS` in the services' environment."""
        self.checkout = find_state().checkout
        self.folder = folder
        own = {"WAYBILL_WEBHOOK_ALLOW": f"127.0.0.1:{webhook_port()}", "WAYBILL_STATE_DIR": str(folder)}
        self._environment = {**os.environ, **SETTINGS, **variables, **own}

    @property
    def status(self) -> dict[str, Any]:
        """The current content of `./dev status --json`."""
        status: dict[str, Any] = json.loads(self.dev("status", "--json"))
        return status

    @cached_property
    def addresses(self) -> dict[str, Any]:
        """`status`, cached: for addresses, which stay the same. Its pids may be out of date."""
        return self.status

    def dev(self, *words: str) -> str:
        """Runs `./dev WORDS` and returns its output. Raises CalledProcessError with its stderr as a note."""
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
    """Runs tests of the whole system first: they run one at a time, and a worker that waits is idle."""
    items.sort(key=lambda item: "stack" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def stack(booted_stack: StackUnderTest) -> Iterator[StackUnderTest]:
    """The whole system, ready, for this test alone: tests in other workers wait."""
    with (booted_stack.folder / "turn.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield booted_stack


@pytest.fixture(scope="session")
def booted_stack() -> Iterator[StackUnderTest]:
    """The whole system, ready. `./dev test` stops it at its end; under plain pytest, this fixture does."""
    folder = stack_folder()
    folder.mkdir(parents=True, exist_ok=True)
    under_test = StackUnderTest(folder)
    with (folder / "boot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        under_test.dev("up", "--detach", "--owner", os.environ.get(STACK_OWNER) or str(os.getpid()))
    yield under_test
    if STACK_DIR not in os.environ:
        under_test.dev("down")
