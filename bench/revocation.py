"""From the response to a sign-out at auth to the first 401 of orders, through the gateway."""

import statistics

from bench.identity import sign_outs
from bench.scale import Scale
from bench.table import Goal, Measured, Rounds, Table, percentile
from waybill_dev.base.state import find_state
from waybill_dev.supervision import control


async def run(scale: Scale, table: Table) -> None:
    rounds = Rounds()

    async def measure() -> Measured:
        lags = await sign_outs(control.call(find_state(), "status")["gateway"], scale.logins)
        return {"p50": statistics.median(lags), "p99": percentile(lags, 99)}

    await rounds.measure("sign-outs", measure, within=60)
    table.add("sign-out to 401, median", rounds.median("sign-outs", "p50"), "ms", key="revocation p50")
    goal = Goal(1000, 100, at_most=True)
    table.add("sign-out to 401, p99", rounds.median("sign-outs", "p99"), "ms", goal=goal, key="revocation p99")
