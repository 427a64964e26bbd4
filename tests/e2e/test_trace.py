"""`./dev trace ORDER_ID`: one order, hop by hop."""

import json
import subprocess
from datetime import datetime
from typing import Any

import pytest

from common.testing.plugin import eventually

HOPS = ["orders", "orders relay", "notifier consume", "notifier deliver", "mail"]


async def test_an_order_is_traced_from_its_commit_to_its_mail(stack: Any, customer: Any) -> None:
    order = (await customer.order()).json()

    async def arrived() -> Any:
        hops = json.loads(stack.dev("trace", order["id"], "--json"))["hops"]
        is_complete = {hop["where"] for hop in hops} == set(HOPS) and "mail of order_placed sent" in str(hops)
        return hops if is_complete else None

    hops = await eventually(arrived, within=30)
    times = [datetime.fromisoformat(hop["at"]) for hop in hops]
    assert times == sorted(times)
    # The mail receiver has its own clock; the first three times are PostgreSQL's. The consumer may be done before the
    # relay has logged the batch.
    assert hops[0]["where"] == HOPS[0]
    assert {hop["where"] for hop in hops[:3]} == set(HOPS[:3])
    shown = stack.dev("trace", order["id"])
    assert all(hop["what"] in shown for hop in hops)


async def test_an_order_whose_event_is_not_published_is_shown_in_the_outbox(stack: Any, customer: Any) -> None:
    stack.dev("stop", "orders:relay")
    try:
        order = (await customer.order()).json()
        hops = json.loads(stack.dev("trace", order["id"], "--json"))["hops"]
        assert [hop["where"] for hop in hops] == ["orders", "orders outbox"]
    finally:
        stack.dev("start", "orders:relay")


@pytest.mark.parametrize(("order_id", "code"), [("019ab4a0-0000-7000-8000-000000000000", 1), ("no-uuid", 2)])
def test_an_unknown_order_is_answered_with_a_sentence_and_an_exit_code(stack: Any, order_id: str, code: int) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        stack.dev("trace", order_id)
    assert failure.value.returncode == code
    assert order_id in failure.value.stderr
    assert "Traceback" not in failure.value.stderr
