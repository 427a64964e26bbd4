"""Starting a supervisor: in this process with the logs on the terminal, or as a daemon."""

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

from waybill_dev.base.options import Options
from waybill_dev.base.state import State, find_state
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.supervision.logfiles import Follower
from waybill_dev.supervision.summary import print_lines, print_summary
from waybill_dev.supervision.supervisor import supervise

FOLLOW_SECONDS = 0.2


def foreground(state: State, options: Options) -> None:
    """Tells the addresses once everything is ready; returns after Ctrl-C or `down`."""
    state.make()
    asyncio.run(_supervise_aloud(state, options))


async def _supervise_aloud(state: State, options: Options) -> None:
    follower = Follower(state.logs, since_end=True)

    async def follow() -> None:
        while True:
            print_lines(follower.lines())
            await asyncio.sleep(FOLLOW_SECONDS)

    def announce() -> None:
        print_summary(state)
        say("ready; Ctrl-C stops everything")

    loop = asyncio.get_running_loop()
    following = asyncio.create_task(follow())
    try:
        # In a thread: the summary asks the supervisor, which is this loop.
        await supervise(state, options, ready=lambda: loop.run_in_executor(None, announce))
    finally:
        following.cancel()
        print_lines(follower.lines())


def detached(state: State, options: Options, *, quiet: bool = False) -> None:
    """Returns once everything is ready, with a summary on the terminal unless `quiet`.

    Raises LocalError with the cause if it doesn't come to that.
    """
    state.make()
    heard, told = os.pipe()
    with (state.logs / "supervisor.log").open("ab") as log, tempfile.TemporaryFile() as given:
        # Not on the command line: the options may hold passwords.
        given.write(options.as_json().encode())
        given.seek(0)
        daemon = subprocess.Popen(
            [sys.executable, "-m", "waybill_dev.supervision.boot", f"--state={state.folder}", f"--tell={told}"],
            stdin=given,
            stdout=log,
            pass_fds=[told],
            start_new_session=True,
        )
    os.close(told)
    try:
        with os.fdopen(heard) as answer:
            outcome = json.loads(answer.readline() or "{}")
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
    """The daemon: reads options from stdin, and tells once through the pipe `--tell` how the boot ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--tell", type=int, required=True)
    arguments = parser.parse_args()
    state = State(find_state().checkout, arguments.state)
    options = Options.from_json(sys.stdin.read())
    os.chdir("/")

    def ready() -> None:
        _tell(arguments.tell, {"ready": True})
        # From now on it speaks to the log: whoever started it may be gone.
        sys.stderr.flush()
        os.dup2(1, 2)

    try:
        asyncio.run(supervise(state, options, ready=ready))
    except LocalError as error:
        _tell(arguments.tell, {"error": str(error)})
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - a bug: its traceback belongs into the log, not on a terminal
        traceback.print_exc(file=sys.stdout)
        _tell(arguments.tell, {"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


def _tell(pipe: int, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError), os.fdopen(pipe, "w") as told:
        told.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main()
