"""Password logins through gateway, auth and users, against argon2 alone; the response times of refusals and resets."""

import asyncio

from bench.identity import CONNECTIONS, Connection, bare_argon2, password_logins, refusal_times, reset_times
from bench.scale import Scale
from bench.table import Goal, Rounds, Table
from waybill_dev.base.state import find_state
from waybill_dev.supervision import control

LIMIT = 60.0


async def run(scale: Scale, table: Table) -> None:
    rounds, status = Rounds(), control.call(find_state(), "status")
    connection = Connection(status["gateway"])
    accounts = [await connection.sign_up() for _ in range(CONNECTIONS)]
    for _ in range(scale.rounds):
        await rounds.measure("argon2", asyncio.to_thread, bare_argon2, scale.seconds, within=LIMIT)
        await rounds.measure("logins", password_logins, status["gateway"], accounts, scale.seconds, within=LIMIT)
    table.add("argon2 on all cores", rounds.median("argon2"), "/s", key="argon2")
    table.add("password logins", rounds.median("logins"), "/s", key="logins")
    ratio = rounds.ratio("logins", "argon2")
    table.add("logins ÷ argon2", ratio=ratio, goal=Goal(0.65, 0.75), key="logins ÷ argon2")
    for what, times in (("refusal", refusal_times), ("reset", reset_times)):
        await rounds.measure(what, times, status, scale.rounds, within=LIMIT)
        for reason in ("wrong password" if what == "refusal" else "known", "unknown", "deactivated"):
            table.add(f"a {what}: {reason}", rounds.median(what, reason), "ms")
        spread = rounds.median(what, "spread")
        table.add(f"the slowest {what} ÷ the fastest", ratio=spread, goal=Goal(1.05, at_most=True))
