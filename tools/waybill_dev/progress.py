import sys
import time

_started = time.monotonic()


def say(message: str) -> None:
    """Prints progress to stderr: one line for each step that a person waits for."""
    print(f"[{time.monotonic() - _started:5.1f} s] {message}", file=sys.stderr, flush=True)
