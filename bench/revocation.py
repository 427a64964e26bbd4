"""From the response to a sign-out at auth to the first 401 of orders, through the gateway."""

import statistics

from bench.identity import sign_outs
from bench.scale import Scale
from bench.table import Goal, Table, percentile
from waybill_dev.base.state import find_state
from waybill_dev.supervision import control


async def run(scale: Scale) -> Table:
    table = Table()
    lags = await sign_outs(control.call(find_state(), "status")["gateway"], scale.logins)
    table.add("sign-out to 401, median", statistics.median(lags), "ms")
    table.add("sign-out to 401, p99", percentile(lags, 99), "ms", goal=Goal(1000, 100, at_most=True))
    return table
