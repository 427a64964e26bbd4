"""`python -m bench SCALE NAME…` runs benchmarks on the servers of the environment and prints a JSON line for each."""

import asyncio
import importlib
import json
import sys

from bench.scale import SCALES
from common.observability.logs import configure_logging
from common.runtime.server import server_loop


def main() -> None:
    scale, *names = sys.argv[1:]
    configure_logging("bench", "bench", "warning")
    for name in names:
        # Imported one by one, so that no benchmark waits for the imports of the others.
        run = importlib.import_module(f"bench.{name}").run
        with asyncio.Runner(loop_factory=server_loop) as runner:  # as in the services
            table = runner.run(run(SCALES[scale]))
        print(json.dumps({"name": name, "rows": [row.as_json() for row in table.rows]}), flush=True)


if __name__ == "__main__":
    main()
