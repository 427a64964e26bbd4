import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import click

from waybill_dev.base.options import BACKING, Options
from waybill_dev.base.program import die_with_parent
from waybill_dev.base.state import State, find_state
from waybill_dev.commands.lifecycle import booted, is_up, stop
from waybill_dev.progress import say
from waybill_dev.supervision import control
from waybill_dev.testing import STACK_DIR, STACK_OWNER

WORKERS = "2"


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--slow", is_flag=True, help="Run the slow tests too (marked slow).")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PYTEST ARGUMENTS]")
def test(arguments: tuple[str, ...], *, slow: bool) -> None:
    """Runs the tests on servers of their own.

    `./dev test services/orders` runs one part. All of pytest's arguments are accepted, and its exit code is returned.
    """
    base = find_state()
    state = State(base.checkout, base.folder / "test")
    stack = State(base.checkout, state.folder / "stack")
    state.make()
    # Quiet, so that pytest's summary is the end of the output.
    with _lock(state), booted(state, Options(BACKING), "booting PostgreSQL and RabbitMQ for the tests"):
        try:
            code = _run_pytest(state, stack, with_defaults(arguments, slow=slow), _folder(base.checkout, arguments))
        finally:
            if is_up(stack):
                stop(stack, quiet=True)
    sys.exit(code)


def with_defaults(arguments: Sequence[str], *, slow: bool) -> list[str]:
    """Adds the defaults of `./dev test` that the arguments leave open: two workers, no slow tests."""
    given = list(arguments)
    chosen = ["-p", "waybill_dev.testing"]
    if not any(word.startswith(("-n", "--numprocesses", "--pdb", "--dist")) or word == "no:xdist" for word in given):
        chosen += ["-n", WORKERS, "--dist", "worksteal"]
    if not slow and not any(word == "-m" or word.startswith("-m=") for word in given):
        chosen += ["-m", "not slow"]
    return [*chosen, *given]


def environment(state: State, stack: State) -> dict[str, str]:
    return {**servers(state), STACK_DIR: str(stack.folder), STACK_OWNER: str(os.getpid())}


def servers(state: State) -> dict[str, str]:
    """The addresses of a stack's servers, in the variables that `common.testing.plugin` reads."""
    status = control.call(state, "status")
    administrator = urlsplit(status["broker"]["amqp_url"]).netloc.rpartition("@")[0]
    return {
        "WAYBILL_TEST_POSTGRES_URL": status["postgres"]["url"],
        "WAYBILL_TEST_AMQP_URL": status["broker"]["amqp_url"],
        "WAYBILL_TEST_MANAGEMENT_URL": status["broker"]["management_url"].replace("://", f"://{administrator}@"),
    }


def _run_pytest(state: State, stack: State, arguments: Sequence[str], folder: Path) -> int:
    options = ["--rootdir", str(state.checkout), "-c", str(state.checkout / "pyproject.toml")]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=folder,
        env={**os.environ, **environment(state, stack)},
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - there is a single thread
    )
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # pytest received it too, and prints its summary
        except SystemExit:
            process.terminate()
            process.wait()
            raise


def _folder(checkout: Path, arguments: Sequence[str]) -> Path:
    """The caller's folder if one of the given paths exists in it, else the checkout."""
    paths = [Path(word.partition("::")[0]) for word in arguments if not word.startswith("-")]
    return Path.cwd() if any(path.exists() for path in paths) else checkout


@contextmanager
def _lock(state: State) -> Iterator[None]:
    with (state.folder / "tests.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another ./dev test of this checkout")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
