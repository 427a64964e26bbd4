import sys
import time

_started = time.monotonic()


def say(message: str) -> None:
    """Tells on stderr what is being done; a line per step that a person would wait for."""
    print(f"[{time.monotonic() - _started:5.1f} s] {message}", file=sys.stderr, flush=True)
