"""A second factor: added with a first code, asked for at sign-in, good once, removed."""

import asyncio
import time
from typing import Any

import pyotp
import pytest

WRONG = "not the password 1"
TOTP = "/me/authenticators/totp"
PWD, MFA = ["pwd"], ["pwd", "otp", "mfa"]


class App:
    """A person's authenticator app. Each code is that of the step after the one before, so none is used twice."""

    def __init__(self, world: Any, person: Any, secret: str) -> None:
        self._world = world
        self._person = person
        self._totp = pyotp.TOTP(secret)
        self.recovery_codes: list[str] = []

    async def code(self) -> str:
        """A code that was not used yet. Makes earlier ones older than they are."""
        await self._world.execute(
            "UPDATE totp_authenticators SET last_step = last_step - 100 WHERE user_id = :id", id=self._person["id"]
        )
        return self._totp.now()

    def wrong_code(self) -> str:
        now = int(time.time()) // 30
        good = {self._totp.generate_otp(now + step) for step in range(-2, 4)}
        return next(code for code in ("000000", "111111", "222222", "333333", "444444", "555555") if code not in good)

    async def confirm(self, code: str | None = None) -> Any:
        body = {"code": code or self._totp.now()}
        return await self._world.public.post(f"{TOTP}/confirm", json=body, headers=self._world.bearer(self._person))


async def add_app(world: Any, person: Any) -> App:
    """An app that is not confirmed."""
    answer = await world.public.post(TOTP, headers=world.bearer(person))
    assert answer.status_code == 201, answer.text
    return App(world, person, answer.json()["secret"])


async def with_app(world: Any) -> tuple[Any, App]:
    """A person with a second factor."""
    person = await world.sign_up()
    app = await add_app(world, person)
    answer = await app.confirm()
    assert answer.status_code == 200, answer.text
    app.recovery_codes = answer.json()["recovery_codes"]
    return person, app


async def listed(world: Any, person: Any) -> Any:
    return (await world.public.get("/me/authenticators", headers=world.bearer(person))).json()


def said(answer: Any) -> Any:
    body = answer.json()
    return (answer.status_code, body["amr"] if answer.status_code == 200 else body["code"])


async def test_an_app_is_a_second_factor_from_its_first_code_on(world: Any) -> None:
    person = await world.sign_up()
    assert await listed(world, person) == {"items": [], "recovery_codes_left": 0}
    answer = await world.public.post(TOTP, headers=world.bearer(person))
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    shown = answer.json()
    assert shown["otpauth_uri"].startswith("otpauth://totp/Waybill:person")
    app = App(world, person, shown["secret"])
    assert await listed(world, person) == {"items": [], "recovery_codes_left": 0}
    assert said(await world.log_in(person["email"])) == (200, PWD)
    refused = await app.confirm(app.wrong_code())
    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_code")
    assert said(await world.log_in(person["email"])) == (200, PWD)

    confirmed = await app.confirm()
    assert (confirmed.status_code, confirmed.headers["Cache-Control"]) == (200, "no-store")
    assert len(set(confirmed.json()["recovery_codes"])) == 10
    found = await listed(world, person)
    assert found["recovery_codes_left"] == 10
    assert [set(item) for item in found["items"]] == [{"type", "created_at", "last_used_at"}]
    assert said(await world.log_in(person["email"])) == (401, "mfa_required")
    answer = await world.log_in(person["email"], otp=await app.code())
    assert said(answer) == (200, MFA)
    assert answer.json()["has_second_factor"] is True
    assert (await listed(world, person))["items"][0]["last_used_at"] > found["items"][0]["last_used_at"]
    event = (await world.events(person["id"]))[-1]
    data = {"user_id": person["id"], "change": "added"}
    assert event == {"type": "users.user.authenticator_changed.v1", "version": 2, "data": data}


async def test_a_code_is_asked_for_after_a_right_password_only_and_a_wrong_one_is_a_wrong_password(world: Any) -> None:
    (person, app), other = await with_app(world), await world.sign_up()
    gone, gone_app = await with_app(world)
    await world.execute("UPDATE users SET status = 'deactivated' WHERE id = :id", id=gone["id"])
    refusals = [
        await world.log_in(person["email"], WRONG),
        await world.log_in(person["email"], WRONG, otp=await app.code()),
        await world.log_in(person["email"], WRONG, otp=app.recovery_codes[0]),
        await world.log_in(person["email"], otp=app.wrong_code()),
        await world.log_in(person["email"], otp="aaaaaa-bbbbbb-cccccc-dddddd"),
        await world.log_in(person["email"], otp="１２３４５６"),
        await world.log_in(person["email"], otp=""),
        await world.log_in("nobody@example.com", otp="123456"),
        await world.log_in(other["email"], WRONG, otp="123456"),
        await world.log_in(gone["email"]),
        await world.log_in(gone["email"], otp=await gone_app.code()),
    ]
    bodies = [answer.json() | {"request_id": None} for answer in refusals]
    assert bodies == [bodies[0]] * len(bodies)
    assert (bodies[0]["status"], bodies[0]["code"]) == (401, "invalid_credentials")
    assert said(await world.log_in(person["email"])) == (401, "mfa_required")
    assert said(await world.log_in(other["email"], otp="123456")) == (200, PWD)
    assert said(await world.log_in(person["email"], otp=await app.code())) == (200, MFA)


async def test_a_code_is_good_once_the_confirming_one_included(world: Any) -> None:
    person = await world.sign_up()
    app = await add_app(world, person)
    step = int(time.time()) // 30
    first, second = (app._totp.generate_otp(step + offset) for offset in (0, 1))
    assert (await app.confirm(first)).status_code == 200
    assert said(await world.log_in(person["email"], otp=first)) == (401, "invalid_credentials")
    answers = await asyncio.gather(*(world.log_in(person["email"], otp=second) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 5
    assert said(await world.log_in(person["email"], otp=first)) == (401, "invalid_credentials")


async def test_a_recovery_code_takes_the_place_of_the_app_once(world: Any) -> None:
    person, app = await with_app(world)
    code, other = app.recovery_codes[:2]
    answers = await asyncio.gather(*(world.log_in(person["email"], otp=code) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 5
    assert said(next(answer for answer in answers if answer.status_code == 200)) == (200, MFA)
    answer = await world.log_in(person["email"], otp=other.upper().replace("-", " "))
    assert (*said(answer), answer.json()["version"]) == (200, MFA, 4)  # its own use included
    assert (await listed(world, person))["recovery_codes_left"] == 8
    changes = [event["data"].get("change") for event in await world.events(person["id"])]
    assert changes == [None, "added", "recovery_code_used", "recovery_code_used"]
    stranger, _ = await with_app(world)
    assert said(await world.log_in(stranger["email"], otp=app.recovery_codes[5])) == (401, "invalid_credentials")


async def test_wrong_codes_are_throttled_as_wrong_passwords_and_asking_for_the_code_clears_nothing(world: Any) -> None:
    person, app = await with_app(world)
    for _ in range(5):
        assert said(await world.log_in(person["email"], otp=app.wrong_code())) == (401, "invalid_credentials")
        assert said(await world.log_in(person["email"], WRONG)) == (401, "invalid_credentials")
        assert (await world.log_in(person["email"])).status_code in (401, 429)
    assert said(await world.log_in(person["email"], otp=await app.code())) == (429, "too_many_attempts")
    assert said(await world.log_in(person["email"])) == (429, "too_many_attempts")
    await world.time_passes(2)
    assert said(await world.log_in(person["email"], otp=await app.code())) == (200, MFA)
    for _ in range(9):
        assert said(await world.log_in(person["email"], otp=app.wrong_code())) == (401, "invalid_credentials")
    assert said(await world.log_in(person["email"], otp=await app.code())) == (200, MFA)


async def test_questions_for_the_code_leave_no_count_behind(world: Any) -> None:
    person, _ = await with_app(world)
    answers = await asyncio.gather(*(world.log_in(person["email"], network="192.0.2.9") for _ in range(20)))
    assert {said(answer) for answer in answers} == {(401, "mfa_required")}
    assert await world.rows("SELECT 1 FROM login_backoffs WHERE failures + in_flight > 0") == []
    [level] = await world.rows("SELECT max(level) AS level FROM login_buckets WHERE updated_at > now() - interval '1s'")
    assert level["level"] is None or level["level"] < 3


async def test_wrong_codes_of_a_confirmation_are_throttled(world: Any) -> None:
    person = await world.sign_up()
    app = await add_app(world, person)
    statuses = [(await app.confirm(app.wrong_code())).status_code for _ in range(12)]
    assert statuses == [403] * 10 + [429] * 2
    assert (await app.confirm()).status_code == 429


async def test_confirmations_without_an_app_do_not_delay_that_of_a_new_one(world: Any) -> None:
    person = await world.sign_up()
    stray = App(world, person, pyotp.random_base32())
    assert {(await stray.confirm()).status_code for _ in range(12)} == {404}
    await world.time_passes(61)  # after which an attempt without an outcome is a failure
    assert (await (await add_app(world, person)).confirm()).status_code == 200


async def test_an_app_that_was_never_confirmed_is_replaced_and_a_confirmed_one_is_not(world: Any) -> None:
    person = await world.sign_up()
    first = await add_app(world, person)
    second = await add_app(world, person)
    assert (await first.confirm()).status_code == 403
    assert (await second.confirm()).status_code == 200
    assert (await second.confirm(await second.code())).status_code == 404
    answer = await world.public.post(TOTP, headers=world.bearer(person))
    assert (answer.status_code, answer.json()["code"]) == (409, "authenticator_exists")
    assert (
        await world.public.post(f"{TOTP}/confirm", json={"code": "12345"}, headers=world.bearer(person))
    ).status_code == 422


async def test_removing_it_ends_the_need_for_a_code_and_the_recovery_codes(world: Any) -> None:
    person, app = await with_app(world)
    headers = world.bearer(person)
    assert (await world.public.delete(TOTP, headers=headers)).status_code == 204
    assert (await world.public.delete(TOTP, headers=headers)).status_code == 404
    assert await listed(world, person) == {"items": [], "recovery_codes_left": 0}
    assert said(await world.log_in(person["email"])) == (200, PWD)
    again = await add_app(world, person)
    assert (await world.public.delete(TOTP, headers=headers)).status_code == 204  # no event: it was no factor
    again = await add_app(world, person)
    assert (await again.confirm()).status_code == 200
    assert said(await world.log_in(person["email"], otp=app.recovery_codes[0])) == (401, "invalid_credentials")
    changes = [event["data"].get("change") for event in await world.events(person["id"])]
    assert changes == [None, "added", "removed", "added"]


async def test_many_confirmations_at_once_give_one_set_of_recovery_codes(world: Any) -> None:
    person = await world.sign_up()
    app = await add_app(world, person)
    answers = await asyncio.gather(*(app.confirm() for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [404] * 7
    assert (await listed(world, person))["recovery_codes_left"] == 10


async def test_sign_ins_while_the_app_is_removed_and_the_account_erased_are_answered(world: Any) -> None:
    for erase in (False, True):
        person, app = await with_app(world)
        path = "/me" if erase else TOTP
        ended, *answers = await asyncio.gather(
            world.public.delete(path, headers=world.bearer(person)),
            *(world.log_in(person["email"], otp=code) for code in app.recovery_codes),
            *(world.log_in(person["email"]) for _ in range(4)),
        )
        assert ended.status_code == 204
        assert {answer.status_code for answer in answers} <= {200, 401}
        versions = [event["version"] for event in await world.events(person["id"])]
        assert versions == list(range(1, len(versions) + 1))


async def test_secrets_and_codes_are_nowhere_in_clear(world: Any) -> None:
    person = await world.sign_up()
    secret = (await world.public.post(TOTP, headers=world.bearer(person))).json()["secret"]
    codes = (await App(world, person, secret).confirm()).json()["recovery_codes"]
    tables = await world.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    contents = [await world.rows(f'SELECT t::text FROM "{row["tablename"]}" t') for row in tables]  # noqa: S608
    everything = str(contents)
    for text in (secret, *codes, *(code.replace("-", "") for code in codes)):
        assert text not in everything
        assert text.encode().hex() not in everything


async def test_a_secret_in_another_persons_row_is_no_second_factor_and_no_answer_tells_why(world: Any) -> None:
    """Whoever can write the table cannot give somebody an app that they have themselves."""
    (person, app), (thief, _) = await with_app(world), await with_app(world)
    await world.execute(
        """UPDATE totp_authenticators SET sealed = (SELECT sealed FROM totp_authenticators WHERE user_id = :person)
           WHERE user_id = :thief""",
        person=person["id"],
        thief=thief["id"],
    )
    answer = await world.log_in(thief["email"], otp=await app.code())
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert said(await world.log_in(person["email"], otp=await app.code())) == (200, MFA)


@pytest.mark.parametrize("known", [True, False])
async def test_a_wrong_password_takes_the_same_statements_with_and_without_a_code(world: Any, known: bool) -> None:
    """No time tells a stranger whether an account has a second factor."""
    person, _ = await with_app(world)
    plain = await world.sign_up()
    emails = [person["email"], plain["email"]] if known else ["nobody@example.com"]
    seen = [
        await world.statements_of(world.log_in(email, WRONG, otp=otp))
        for email in emails
        for otp in (None, "123456", "aaaaaa-bbbbbb-cccccc-dddddd")
    ]
    assert seen[0]
    assert seen == [seen[0]] * len(seen)
