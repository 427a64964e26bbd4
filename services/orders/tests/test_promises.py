"""Random histories of requests, each response and each event of which is the one that a plain model gives."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import httpx
import hypothesis.strategies as st
from hypothesis.stateful import initialize, invariant, rule

from common.db.database import new_id
from common.testing.state_machine import AsyncStateMachine, examples, explore, in_loop

from .order_model import STEPS, Line, Model, Order, UsedKey
from .test_consumers import erase

WHO: Final = st.integers(0, 2)
"""Number of a customer."""
PICK: Final = st.integers(0, 7)
"""Of the orders or keys, from the newest."""
SKUS: Final = ("LAMP", "BULB", "NONE")
KEY: Final = st.sampled_from([None, "key-1", "key-2"])
NOTE: Final = st.sampled_from([None, None, "Mind the dog"])
LINES: Final = st.one_of(
    st.lists(st.tuples(st.sampled_from(SKUS[:2]), st.sampled_from([1, 2, 1000])), min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(SKUS[:2]), st.sampled_from([1, 2])), min_size=1, max_size=2),
    st.lists(st.tuples(st.sampled_from(SKUS), st.sampled_from([1, 2])), min_size=1, max_size=2),
    st.just([("LAMP", 1000)] * 10),
)
IF_MATCH: Final = st.sampled_from(["", "", "", "*", '"{0}"', '"{0}"', '"{1}"', '"{1}", "{0}"', 'W/"{0}"', "none"])
"""Of an order's version {0} and the one before, {1}."""


class OrdersApi(AsyncStateMachine):
    def __init__(self, shop: Any, desk: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.shop, self.desk, self.model = shop, desk, Model()
        self.customers = [new_id() for _ in range(3)]
        self.suffix = new_id().hex
        self.published = self.wait(self.last_event())

    async def last_event(self) -> int:
        [row] = await self.desk.rows("SELECT coalesce(max(id), 0) AS id FROM outbox")
        return int(row["id"])

    @initialize()
    @in_loop
    async def begin(self) -> None:
        for sku, amount in (("LAMP", 4900), ("BULB", 350)):
            await self.put_product(sku, amount, "EUR", active=True)
        for customer, key in zip(self.customers, ("key-1", "key-2", None), strict=True):
            await self.order(customer, self.with_suffix([("LAMP", 1), ("BULB", 2)]), "Mind the dog", key)

    @rule(
        sku=st.sampled_from(SKUS[:2]),
        amount=st.sampled_from([0, 1, 10**12]),
        currency=st.sampled_from(["EUR", "EUR", "USD"]),
        active=st.sampled_from([True, True, False]),
    )
    @in_loop
    async def change_the_catalogue(self, sku: str, amount: int, currency: str, active: bool) -> None:
        await self.put_product(sku, amount, currency, active=active)

    async def put_product(self, sku: str, amount: int, currency: str, *, active: bool) -> None:
        sku = f"{sku}-{self.suffix}"
        product = {"name": f"{sku} {amount}", "price": {"amount": amount, "currency": currency}, "active": active}
        answer = await self.shop.client.put(f"/products/{sku}", json=product, headers=self.shop.staff_headers)
        assert answer.status_code == (200 if sku in self.model.products else 201)
        assert product.items() <= answer.json().items()
        self.model.products[sku] = product

    @rule(who=WHO, key=KEY, lines=LINES, note=NOTE)
    @in_loop
    async def place(self, who: int, key: str | None, lines: list[Line], note: str | None) -> None:
        await self.order(self.customers[who], self.with_suffix(lines), note, key)

    @rule(number=PICK, other=st.sampled_from([None, None, "note", "quantity", "customer"]))
    @in_loop
    async def repeat(self, number: int, other: str | None) -> None:
        """Sends a request with a used key again, as it was or with something changed."""
        if not self.model.keys:
            return
        (customer, key), used = self.pick(list(self.model.keys.items()), number)
        lines, note = used.lines, used.note
        if other == "quantity":
            lines = [(lines[0][0], lines[0][1] % 1000 + 1), *lines[1:]]
        elif other == "note":
            note = "Ring twice"
        elif other == "customer":
            customer = self.customers[(self.customers.index(customer) + 1) % 3]
        await self.order(customer, lines, note, key)

    @rule(who=WHO, lines=LINES, note=NOTE)
    @in_loop
    async def place_twice_at_once(self, who: int, lines: list[Line], note: str | None) -> None:
        """One of two requests with one key may be told that the other one is in flight."""
        customer, lines, key = self.customers[who], self.with_suffix(lines), new_id().hex
        answers = await asyncio.gather(*(self.send(customer, lines, note, key) for _ in range(2)))
        answered = [a for a in answers if not (a.status_code == 409 and a.json()["code"] == "request_in_flight")]
        assert answered
        for answer in answered:
            self.check_placed(answer, customer, lines, note, key)

    async def order(self, customer: UUID, lines: Sequence[Line], note: str | None, key: str | None = None) -> None:
        self.check_placed(await self.send(customer, lines, note, key), customer, lines, note, key)

    async def send(self, customer: UUID, lines: Sequence[Line], note: str | None, key: str | None) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key is not None else {}
        answer: httpx.Response = await self.shop.place(*lines, note=note, customer=customer, **headers)
        return answer

    def check_placed(
        self, answer: httpx.Response, customer: UUID, lines: Sequence[Line], note: str | None, key: str | None
    ) -> None:
        used = self.model.keys.get((customer, key)) if key is not None else None
        if used is not None and (used.lines, used.note) != (lines, note):
            assert self.shop.is_problem(answer, 422, "idempotency_key_reused")
            return
        if used is None and (refusal := self.model.refusal(lines)) is not None:
            code, positions = refusal
            assert self.shop.is_problem(answer, 422, code)
            named = [error["loc"] for error in answer.json().get("errors", [])]
            assert named == [["body", "lines", position, "sku"] for position in positions]
            return
        assert answer.status_code == 201, answer.text
        shown = answer.json()
        assert (answer.headers["Location"], answer.headers["ETag"]) == (f"/orders/{shown['id']}", '"1"')
        if used is not None:
            assert answer.content == used.answer, "a repeated request gets the first response"
            return
        assert shown["id"] not in {order.id for order in self.model.orders}
        order = self.model.place(customer, lines, note, order_id=shown["id"], at=shown["created_at"])
        assert shown == order.shown
        if key is not None:
            self.model.keys[customer, key] = UsedKey(lines, note, answer.content)

    @rule(number=PICK)
    @in_loop
    async def advance(self, number: int) -> None:
        """Staff take the next step, if there is one."""
        order = self.pick(self.model.orders, number)
        if steps := [step for step, (_, allowed, _) in STEPS.items() if order.shown["status"] in allowed]:
            await self.take(order, steps[0], "staff", "")

    @rule(number=PICK)
    @in_loop
    async def cancel(self, number: int) -> None:
        """The customer tries, whatever the state."""
        await self.take(self.pick(self.model.orders, number), "cancel", "owner", "")

    @rule(
        number=PICK,
        step=st.sampled_from([*STEPS]),
        by=st.sampled_from(["owner", "staff", "staff", "staff", "stranger"]),
        if_match=IF_MATCH,
    )
    @in_loop
    async def change(self, number: int, step: str, by: str, if_match: str) -> None:
        await self.take(self.pick(self.model.orders, number), step, by, if_match)

    async def take(self, order: Order, step: str, by: str, if_match: str) -> None:
        version, body = order.version, STEPS[step][2]
        headers = self.bearer(order, by)
        if if_match:
            headers["If-Match"] = if_match.format(version, version - 1)
        accepted = {'"{0}"': {version}, '"{1}", "{0}"': {version, version - 1}, "": None, "*": None}
        answer = await self.shop.client.post(f"/orders/{order.id}/{step}", json=body or None, headers=headers)
        refusal = self.model.change_refusal(order, step, by, accepted.get(if_match, frozenset()))
        if refusal is not None:
            assert self.shop.is_problem(answer, *refusal)
            return
        assert answer.status_code == 200, answer.text
        before, at = order.shown["updated_at"], answer.json()["updated_at"]
        self.model.change(order, step, by, at=at)
        assert answer.json() == order.shown
        assert answer.headers["ETag"] == order.etag
        assert datetime.fromisoformat(before) <= datetime.fromisoformat(at)  # not as text: a whole second has no dot

    @rule(number=PICK, by=st.sampled_from(["owner", "staff", "stranger"]), if_none_match=IF_MATCH.filter(bool))
    @in_loop
    async def read(self, number: int, by: str, if_none_match: str) -> None:
        order = self.pick(self.model.orders, number)
        condition = {"If-None-Match": if_none_match.format(order.version, order.version - 1)}
        answer = await self.shop.client.get(f"/orders/{order.id}", headers=self.bearer(order, by) | condition)
        if by == "stranger":
            assert self.shop.is_problem(answer, 404, "not_found")
            return
        matches = if_none_match == "*" or "{0}" in if_none_match  # a weak tag matches here
        assert answer.status_code == (304 if matches else 200)
        assert answer.headers["ETag"] == order.etag
        assert matches or answer.json() == order.shown

    @rule(who=WHO, status=st.sampled_from([None, "placed", "cancelled"]))
    @in_loop
    async def read_the_list(self, who: int, status: str | None) -> None:
        customer, seen, query = self.customers[who], [], {"limit": "2"} | ({"status": status} if status else {})
        while True:
            answer = await self.shop.client.get("/orders", params=query, headers=self.shop.bearer(customer))
            seen += answer.json()["items"]
            if answer.json()["next_cursor"] is None:
                break
            query["cursor"] = answer.json()["next_cursor"]
        theirs = [order.shown for order in self.model.orders if order.customer == customer]
        assert seen == [shown for shown in reversed(theirs) if status in (None, shown["status"])]

    @rule(who=WHO, is_wanted=st.sampled_from([True, False, False]))
    @in_loop
    async def the_person_is_erased(self, who: int, is_wanted: bool) -> None:
        if is_wanted:
            await erase(self.desk.database, {"user_id": str(self.customers[who])})
            self.model.erase(self.customers[who])

    @invariant()
    @in_loop
    async def each_change_has_one_event_in_order(self) -> None:
        rows = await self.desk.rows("SELECT * FROM outbox WHERE id > :start ORDER BY id", start=self.published)
        published = [(row["subject"], row["version"], row["type"], row["data"]) for row in rows]
        assert published == [(each.order_id, each.version, each.type, each.data) for each in self.model.events]
        assert len({row["event_id"] for row in rows}) == len(rows)

    def teardown(self) -> None:
        self.wait(self.every_order_is_as_in_the_model())

    async def every_order_is_as_in_the_model(self) -> None:
        for order in self.model.orders:
            path, headers = f"/orders/{order.id}", self.bearer(order, "owner")
            assert (await self.shop.client.get(path, headers=headers)).json() == order.shown
            timeline = (await self.shop.client.get(f"{path}/events", headers=headers)).json()
            assert timeline["items"] == [event.shown for event in order.events]

    def bearer(self, order: Order, by: str) -> dict[str, str]:
        if by == "staff":
            return dict(self.shop.staff_headers)
        stranger = self.customers[(self.customers.index(order.customer) + 1) % 3]
        bearer: dict[str, str] = self.shop.bearer(order.customer if by == "owner" else stranger)
        return bearer

    def with_suffix(self, lines: list[Line]) -> list[Line]:
        return [(f"{sku}-{self.suffix}", quantity) for sku, quantity in lines]

    @staticmethod
    def pick(items: list[Any], number: int) -> Any:
        return items[-1 - number % len(items)]


@examples(25, 60)
def test_every_history_of_orders_is_as_a_plain_model_says(
    shop: Any, desk: Any, loop: asyncio.AbstractEventLoop, examples: int
) -> None:
    explore(lambda: OrdersApi(shop, desk, loop), examples=examples)
