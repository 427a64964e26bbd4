import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select, text

from common.database import Database
from common.idempotency import STORE, Answer, Attempt, InFlight, KeyReused, find, idempotency_keys, store, sweep

ANSWER = Answer(201, {"Location": "/orders/1", "ETag": '"1"'}, b'{"id":1,"note":"\xc3\xa9"}')


def an_attempt(key: str = "k", *, subject: str = "ada", route: str = "place_order", request: Any = None) -> Attempt:
    return Attempt.of(subject=subject, route=route, key=key, request=request if request is not None else {"sku": "a"})


async def answered(database: Database, attempt: Attempt, answer: Answer = ANSWER) -> None:
    async with database.transaction() as session:
        assert await find(session, attempt) is None
        await store(session, attempt, answer)


async def kept(database: Database) -> int:
    async with database.transaction() as session:
        return (await session.execute(select(func.count()).select_from(idempotency_keys))).scalar_one()


async def test_the_same_request_with_the_same_key_gets_the_same_answer(database: Database) -> None:
    await answered(database, an_attempt())
    async with database.transaction() as session:
        assert await find(session, an_attempt()) == ANSWER
    assert ANSWER.response().body == ANSWER.body
    assert ANSWER.response().headers["location"] == "/orders/1"


async def test_white_space_and_the_order_of_keys_make_no_other_request() -> None:
    assert an_attempt(request={"a": 1, "b": [1, 2]}) == an_attempt(request={"b": [1, 2], "a": 1})
    assert an_attempt(request={"b": [2, 1]}) != an_attempt(request={"b": [1, 2]})


async def test_another_request_with_the_same_key_is_refused(database: Database) -> None:
    await answered(database, an_attempt())
    async with database.transaction() as session:
        with pytest.raises(KeyReused) as refusal:
            await find(session, an_attempt(request={"sku": "b"}))
    assert (refusal.value.status, refusal.value.code) == (422, "idempotency_key_reused")


async def test_keys_are_each_persons_and_each_routes_own(database: Database) -> None:
    await answered(database, an_attempt())
    await answered(database, an_attempt(subject="bob", request={"sku": "b"}))
    await answered(database, an_attempt(route="cancel_order", request={"sku": "c"}))
    assert await kept(database) == 3


async def test_a_second_request_while_the_first_is_in_flight_is_a_conflict(database: Database) -> None:
    async with database.transaction() as first:
        assert await find(first, an_attempt()) is None
        async with database.transaction() as second:
            with pytest.raises(InFlight) as refusal:
                await find(second, an_attempt())
        await store(first, an_attempt(), ANSWER)
    assert (refusal.value.status, refusal.value.headers["Retry-After"]) == (409, "1")
    async with database.transaction() as later:
        assert await find(later, an_attempt()) == ANSWER


async def test_a_refused_request_keeps_nothing_and_leaves_its_key_free(database: Database) -> None:
    with pytest.raises(ValueError, match="refused"):
        async with database.transaction() as session:
            await find(session, an_attempt())
            await store(session, an_attempt(), ANSWER)
            raise ValueError("refused")
    await answered(database, an_attempt(request={"sku": "another"}))


async def test_an_answer_kept_between_finding_none_and_storing_is_never_overwritten(database: Database) -> None:
    await answered(database, an_attempt())
    async with database.transaction() as session:
        with pytest.raises(InFlight):
            await store(session, an_attempt(), Answer(201, {}, b"{}"))
    async with database.transaction() as session:
        assert await find(session, an_attempt()) == ANSWER


async def test_a_key_is_free_again_after_24_hours(database: Database) -> None:
    await answered(database, an_attempt())
    async with database.transaction() as session:
        await session.execute(text("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'"))
    await answered(database, an_attempt(request={"sku": "b"}), Answer(201, {}, b"2"))
    async with database.transaction() as session:
        assert await find(session, an_attempt(request={"sku": "b"})) == Answer(201, {}, b"2")


async def test_sweeping_deletes_old_answers_in_bounded_steps_and_leaves_fresh_ones(database: Database) -> None:
    for number in range(4):
        await answered(database, an_attempt(f"k{number}"))
    async with database.transaction() as session:
        await session.execute(
            text("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key <> 'k3'")
        )
    async with database.transaction() as session:
        assert await sweep(session, limit=2) == 2
    async with database.transaction() as session:
        assert await sweep(session, limit=2) == 1
    assert await kept(database) == 1


async def test_of_many_at_once_one_has_the_effect_and_the_rest_conflict_or_repeat_it(database: Database) -> None:
    async def request(number: int) -> str:
        try:
            async with database.transaction() as session:
                answer = await find(session, an_attempt())
                if answer is None:
                    await session.execute(text("INSERT INTO effects (note) VALUES (:note)"), {"note": str(number)})
                    answer = Answer(201, {}, str(number).encode())
                    await store(session, an_attempt(), answer)
        except InFlight:
            return "in flight"
        return answer.body.decode()

    outcomes = await asyncio.gather(*(request(number) for number in range(20)))
    async with database.transaction() as session:
        effects = (await session.execute(text("SELECT note FROM effects"))).scalars().all()
    assert len(effects) == 1
    assert set(outcomes) <= {"in flight", effects[0]}


async def test_a_write_of_one_statement_takes_the_key_in_the_same_statement(database: Database) -> None:
    statement = f"WITH claimed AS ({STORE}) INSERT INTO effects (note) SELECT $9 FROM claimed RETURNING note"  # noqa: S608 - constants

    async def place(attempt: Attempt) -> str | None:
        async with database.engine.connect() as connection:
            rows = await connection.exec_driver_sql(statement, (*attempt.parameters(ANSWER), "order"))
            note = rows.scalar_one_or_none()
            await connection.commit()
            return note

    outcomes = await asyncio.gather(*(place(an_attempt()) for _ in range(8)))
    assert sorted(outcomes, key=str) == [None] * 7 + ["order"]
    async with database.transaction() as session:
        assert await find(session, an_attempt()) == ANSWER
