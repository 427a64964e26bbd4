"""`./dev trace ORDER_ID`: what became of one order."""

import json
import subprocess
from datetime import datetime
from typing import Any

import pytest

from common.testing.plugin import eventually

WAY = ["orders", "orders relay", "notifier consume", "notifier deliver", "mail"]


async def test_an_order_is_traced_from_its_commit_to_its_mail(stack: Any, customer: Any) -> None:
    order = (await customer.order()).json()

    async def arrived() -> Any:
        hops = json.loads(stack.dev("trace", order["id"], "--json"))["hops"]
        return hops if {hop["where"] for hop in hops} == set(WAY) and "mail of order_placed sent" in str(hops) else None

    hops = await eventually(arrived, within=30)
    times = [datetime.fromisoformat(hop["at"]) for hop in hops]
    assert times == sorted(times)
    # The receiver's clock ticks at its own pace: the first three are PostgreSQL's.
    assert [hop["where"] for hop in hops][:3] == WAY[:3]
    shown = stack.dev("trace", order["id"])
    assert all(hop["what"] in shown for hop in hops)


async def test_an_order_whose_event_still_waits_is_shown_as_waiting(stack: Any, customer: Any) -> None:
    stack.dev("stop", "orders:relay")
    try:
        order = (await customer.order()).json()
        hops = json.loads(stack.dev("trace", order["id"], "--json"))["hops"]
        assert [hop["where"] for hop in hops] == ["orders", "orders outbox"]
    finally:
        stack.dev("start", "orders:relay")


@pytest.mark.parametrize(("order_id", "code"), [("019ab4a0-0000-7000-8000-000000000000", 1), ("no-uuid", 2)])
def test_an_order_that_does_not_exist_is_a_sentence_and_an_exit_code(stack: Any, order_id: str, code: int) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        stack.dev("trace", order_id)
    assert failure.value.returncode == code
    assert order_id in failure.value.stderr
    assert "Traceback" not in failure.value.stderr
