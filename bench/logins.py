"""Password logins through gateway, auth and users, against argon2 alone; the response times of refusals and resets."""

import asyncio

from bench.identity import CONNECTIONS, Connection, bare_argon2, password_logins, response_times
from bench.scale import Scale
from bench.table import Goal, Rounds, Table
from waybill_dev.base.state import find_state
from waybill_dev.supervision import control


async def run(scale: Scale) -> Table:
    table, rounds = Table(), Rounds()
    status = control.call(find_state(), "status")
    connection = Connection(status["gateway"])
    accounts = [await connection.sign_up() for _ in range(CONNECTIONS)]
    for _ in range(scale.rounds):
        rounds.add("argon2", await asyncio.to_thread(bare_argon2, scale.seconds))
        rounds.add("logins", await password_logins(status["gateway"], accounts, scale.seconds))
    table.add("argon2 on all cores", rounds.median("argon2"), "/s")
    table.add("password logins", rounds.median("logins"), "/s")
    table.add("logins ÷ argon2", ratio=rounds.ratio("logins", "argon2"), goal=Goal(0.9, 0.95))
    for what, times in zip(("refusal", "reset"), await response_times(status, scale.rounds), strict=True):
        for reason, milliseconds in times.items():
            table.add(f"a {what}: {reason}", milliseconds, "ms")
        spread = max(times.values()) / min(times.values())
        table.add(f"the slowest {what} ÷ the fastest", ratio=spread, goal=Goal(1.05, at_most=True))
    return table
