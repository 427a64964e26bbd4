"""Starts a supervisor: in this process with the logs on the terminal, or as a daemon."""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from waybill_dev.base.background import background
from waybill_dev.base.options import Options
from waybill_dev.base.state import State, find_state
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.supervision.logfiles import Follower
from waybill_dev.supervision.summary import print_lines, print_summary
from waybill_dev.supervision.supervisor import supervise

FOLLOW_SECONDS = 0.2


def foreground(state: State, options: Options) -> None:
    """Prints the addresses once everything is ready, and all logs. Returns after Ctrl-C or `down`."""
    state.make()
    asyncio.run(_supervise_with_logs(state, options))


async def _supervise_with_logs(state: State, options: Options) -> None:
    follower = Follower(state.logs, since_end=True)

    async def follow() -> None:
        while True:
            print_lines(follower.lines())
            await asyncio.sleep(FOLLOW_SECONDS)

    def announce() -> None:
        print_summary(state)
        say("ready; Ctrl-C stops everything")

    loop = asyncio.get_running_loop()
    try:
        async with background(follow()):
            # In a thread, because the summary calls the supervisor, which runs in this loop.
            await supervise(state, options, ready=lambda: loop.run_in_executor(None, announce))
    finally:
        print_lines(follower.lines())


def detached(state: State, options: Options, *, quiet: bool = False) -> None:
    """Starts the daemon and returns once everything is ready. Prints a summary, unless `quiet`.

    Raises LocalError with the cause when the boot fails.
    """
    state.make()
    reader, writer = os.pipe()
    with (state.logs / "supervisor.log").open("ab") as log, tempfile.TemporaryFile() as stdin:
        # Not on the command line, as the options may hold passwords.
        stdin.write(options.as_json().encode())
        stdin.seek(0)
        daemon = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "waybill_dev.supervision.boot",
                f"--state={state.folder}",
                f"--outcome={writer}",
            ],
            stdin=stdin,
            stdout=log,
            pass_fds=[writer],
            start_new_session=True,
        )
    os.close(writer)
    try:
        with os.fdopen(reader) as pipe:
            outcome = json.loads(pipe.readline() or "{}")
    except (KeyboardInterrupt, SystemExit):
        daemon.terminate()
        daemon.wait()
        raise
    if "ready" not in outcome:
        daemon.wait()
        unknown = f"the supervisor ended with exit code {daemon.returncode}"
        raise LocalError(outcome.get("error", unknown), log=state.logs / "supervisor.log")
    if not quiet:
        print_summary(state)


def main() -> None:
    """The daemon. Reads the options from stdin, and writes one line with the outcome of the boot to the pipe."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--outcome", type=int, required=True, help="file descriptor of the pipe")
    arguments = parser.parse_args()
    state = State(find_state().checkout, arguments.state)
    options = Options.from_json(sys.stdin.read())
    os.chdir("/")

    def ready() -> None:
        _report(arguments.outcome, {"ready": True})
        # From now on stderr goes to the log, because the terminal of the starting command may be closed.
        sys.stderr.flush()
        os.dup2(1, 2)

    try:
        asyncio.run(supervise(state, options, ready=ready))
    except LocalError as error:
        _report(arguments.outcome, {"error": str(error)})
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - a bug: its traceback belongs in the log, not on a terminal
        traceback.print_exc(file=sys.stdout)
        _report(arguments.outcome, {"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


def _report(descriptor: int, outcome: dict[str, object]) -> None:
    with contextlib.suppress(OSError), os.fdopen(descriptor, "w") as pipe:
        pipe.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main()
