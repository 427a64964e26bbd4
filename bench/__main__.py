"""`python -m bench SCALE NAME` runs a benchmark on the servers of the environment. It prints rows as JSON lines."""

import asyncio
import importlib
import json
import sys

from bench.scale import SCALES
from bench.table import Row, Table
from common.observability.logs import configure_logging
from common.runtime.server import server_loop


def main() -> None:
    scale, name = sys.argv[1:]
    configure_logging("bench", "bench", "warning")
    run = importlib.import_module(f"bench.{name}").run
    with asyncio.Runner(loop_factory=server_loop) as runner:  # as in the services
        runner.run(run(SCALES[scale], Table(_print)))


def _print(row: Row) -> None:
    print(json.dumps(row.as_json(), ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
