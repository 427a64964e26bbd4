"""What is kept of people's sign-ins, who sees it, and which devices are known."""

from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update

from auth.retention import run_cleanup
from auth.settings import Settings
from auth.sign_in_models import NOBODY, SignIn
from auth.tokens import refresh
from auth.tokens.device import unseal
from common.db.database import Database, new_id

from .browsing import ISSUER, Browser, Forms, exchange, sent
from .conftest import PASSWORD, Auth, Happens, Person
from .test_refresh import events
from .test_sessions import bearer, sid


async def try_to_sign_in(auth: Auth, email: str, password: str = PASSWORD, **form: str) -> int:
    return (await auth.token(grant_type="password", username=email, password=password, **form)).status_code


async def listed(auth: Auth, tokens: dict[str, Any], query: str = "") -> Any:
    return (await auth.http.get(f"/sign-ins{query}", headers=bearer(tokens))).json()


async def started(database: Database) -> list[tuple[bool, str]]:
    """Of each session that was started: whether its device is new, and its description."""
    found = [data for kind, _, data in await events(database) if kind == "auth.session.started.v1"]
    return [(data["is_new_device"], data["device"]) for data in found]


async def test_people_see_their_sign_ins_newest_first_refused_ones_included(auth: Auth, database: Database) -> None:
    ada, bob = auth.users.add("ada@example.com", code="123456"), auth.users.add("bob@example.com")
    auth.http.headers["User-Agent"] = "Browser"
    await auth.sign_in(bob)
    first = await auth.sign_in(ada, otp="123456")
    for password in ("wrong", "throttled", "throttled"):
        await try_to_sign_in(auth, ada.email, password)
    await try_to_sign_in(auth, ada.email)
    await try_to_sign_in(auth, "nobody@example.com", "wrong")
    await try_to_sign_in(auth, ada.email, "x" * 2000)  # users was not asked
    page = await listed(auth, first)
    outcomes = ["code_missing", "throttled", "wrong", "succeeded"]
    assert [item["outcome"] for item in page["items"]] == outcomes
    assert {(item["device"], item["client_id"]) for item in page["items"]} == {("Browser", "web")}
    [network] = {item["network"] for item in page["items"]}
    assert len(network) == 16
    assert "192.0.2.1" not in str(page)
    assert [item["session_id"] for item in page["items"]] == [None, None, None, sid(first)]
    head = await listed(auth, first, "?limit=3")
    rest = await listed(auth, first, f"?limit=3&cursor={head['next_cursor']}")
    assert [item["outcome"] for item in (*head["items"], *rest["items"])] == outcomes
    assert (await auth.http.get("/sign-ins?cursor=x", headers=bearer(first))).json()["code"] == "invalid_cursor"
    async with database.transaction() as session:
        [unknown] = (await session.scalars(select(SignIn).where(SignIn.user_id == NOBODY))).all()
    assert unknown.outcome == "wrong"


async def test_only_administrators_see_and_end_what_is_anothers(auth: Auth, database: Database) -> None:
    ada, bob, root = (auth.users.add(f"{name}@example.com") for name in ("ada", "bob", "root"))
    root.role = "admin"
    adas, other, bobs, admins = [await auth.sign_in(person) for person in (ada, ada, bob, root)]
    query = f"?user_id={ada.user_id}"
    for method, path in (
        ("GET", f"/sign-ins{query}"),
        ("GET", f"/sessions{query}"),
        ("DELETE", f"/sessions{query}"),
        ("DELETE", f"/sessions/{sid(adas)}{query}"),
    ):
        answer = await auth.http.request(method, path, headers=bearer(bobs))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "insufficient_scope" in answer.headers["WWW-Authenticate"]
        narrow = await auth.sign_in(root, scope="orders:read")
        assert (await auth.http.request(method, path, headers=bearer(narrow))).status_code == 403
    assert len((await listed(auth, admins, query))["items"]) == 2
    sessions = (await auth.http.get(f"/sessions{query}", headers=bearer(admins))).json()["items"]
    assert [(item["id"], item["current"]) for item in sessions] == [(sid(other), False), (sid(adas), False)]
    assert (await auth.http.delete(f"/sessions/{sid(adas)}", headers=bearer(admins))).status_code == 404
    assert (await auth.http.delete(f"/sessions/{sid(adas)}{query}", headers=bearer(admins))).status_code == 204
    assert (await events(database))[-1][2]["reason"] == "ended_by_admin"
    assert (await auth.http.delete(f"/sessions{query}", headers=bearer(admins))).status_code == 204
    assert (await events(database))[-1][2]["reason"] == "ended_by_admin"
    assert (await auth.http.get("/sessions", headers=bearer(other))).status_code == 401
    assert (await auth.http.get("/sessions", headers=bearer(admins))).status_code == 200
    assert (await listed(auth, admins, f"?user_id={new_id()}"))["items"] == []
    assert (await auth.http.get("/sign-ins?user_id=x", headers=bearer(admins))).status_code == 422
    assert (await auth.http.get("/sign-ins", headers=await auth.service_token())).status_code == 403


async def test_a_device_is_new_that_the_person_has_not_signed_in_with_in_this_network(
    auth: Auth, database: Database
) -> None:
    ada, bob = auth.users.add("ada@example.com"), auth.users.add("bob@example.com")

    async def sign_in(person: Person, device: str, address: str = "203.0.113.1", **form: str) -> dict[str, Any]:
        auth.http.headers.update({"User-Agent": device, "X-Forwarded-For": address})
        return await auth.sign_in(person, **form)

    phone = await sign_in(ada, "Phone")
    await sign_in(bob, "Laptop")
    await sign_in(ada, "Phone")
    await sign_in(ada, "Laptop")
    await sign_in(ada, "Laptop")
    await sign_in(ada, "Phone", "203.0.113.2")
    await sign_in(ada, "Phone", "203.0.113.3", refresh_token=phone["refresh_token"])
    await sign_in(bob, "Phone", "203.0.113.3", refresh_token=phone["refresh_token"])  # another person's
    new = [is_new for is_new, _ in await started(database)]
    assert new == [False, False, False, True, False, True, True, True]
    assert (await started(database))[0] == (False, "Phone")


async def test_a_sign_in_on_the_page_alone_makes_no_device_known(auth: Auth, database: Database) -> None:
    """Somebody who has the password signs in there first, so that the session that they begin is not announced."""
    ada = auth.users.add("ada@example.com")
    auth.http.headers["User-Agent"] = "Phone"
    phone = await auth.sign_in(ada)
    auth.http.headers["User-Agent"] = "Thief"
    browser, redirect_uri = Browser(auth), f"{ISSUER}/docs/auth/assets/oauth2-redirect.html"
    browser.http.headers["User-Agent"] = "Thief"
    await browser.sign_in(await browser.open("/sign-in"), ada)
    page = await browser.authorize(prompt="login", redirect_uri=redirect_uri)
    code = sent(await browser.sign_in(page, ada))["code"]
    thief = (await exchange(auth, code, redirect_uri=redirect_uri)).json()
    again = await auth.sign_in(ada)
    assert await started(database) == [(False, "Phone"), (True, "Thief"), (False, "Thief")]
    shown = [item["session_id"] for item in (await listed(auth, again))["items"]]
    assert shown == [sid(again), sid(thief), None, sid(phone)]


async def test_users_hears_of_the_device_that_a_refresh_token_of_an_earlier_session_proves(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    first = await auth.sign_in(ada)
    device = {"user_id": str(ada.user_id), "id": sid(first)}
    newer = (await auth.refresh(first["refresh_token"])).json()
    await auth.http.delete(f"/sessions/{sid(first)}", headers=bearer(newer))
    token = refresh.parse(first["refresh_token"])
    assert token is not None
    forged = refresh.derive(b"x" * 32, token.family, 1, b"n" * 32).text
    for proof, expected in (
        (first["refresh_token"], device),
        (newer["refresh_token"], device),
        (forged, None),
        (first["refresh_token"][:-1], None),
        ("", None),
    ):
        await auth.sign_in(ada, refresh_token=proof)
        assert auth.users.requests[-1][0].get("device") == expected
    assert "device" not in auth.users.requests[0][0]  # an older release of users refuses unknown fields


async def test_no_device_is_known_any_more_once_the_account_was_taken_back(auth: Auth, happens: Happens) -> None:
    ada = auth.users.add("ada@example.com")
    browser, version = Browser(auth), 1

    async def device() -> Any:
        browser.http.cookies.delete("waybill")
        await browser.sign_in(await browser.open("/sign-in"), ada)
        return auth.users.requests[-1][0].get("device")

    assert await device() is None
    for event in ("email_reverted", "password_changed"):
        tokens = await auth.sign_in(ada)
        assert await device() is not None
        version += 1
        await happens(event, ada, version=version)
        ada.version = version
        assert await device() is None
        await auth.sign_in(ada, refresh_token=tokens["refresh_token"])
        assert "device" not in auth.users.requests[-1][0]


async def test_sign_ins_are_kept_for_ninety_days(auth: Auth, database: Database) -> None:
    async def left() -> int:
        await run_cleanup(database)
        async with database.transaction() as session:
            return (await session.execute(select(func.count()).select_from(SignIn))).scalar_one()

    ada = auth.users.add("ada@example.com")
    await auth.sign_in(ada)
    for days, expected in ((89, 2), (2, 2)):
        async with database.transaction() as session:
            await session.execute(update(SignIn).values(created_at=SignIn.created_at - timedelta(days=days)))
        await auth.sign_in(ada)
        assert await left() == expected


async def test_an_erased_persons_sign_ins_and_devices_are_deleted_from_tables_and_events(
    auth: Auth, database: Database, happens: Happens
) -> None:
    ada, bob = auth.users.add("ada@example.com"), auth.users.add("bob@example.com")
    auth.http.headers["User-Agent"] = "Ada's own browser"
    await auth.sign_in(ada)
    auth.http.headers["User-Agent"] = "Browser"
    bobs = await auth.sign_in(bob)
    await happens("erased", ada, version=2)
    async with database.transaction() as session:
        kept = (await session.scalars(select(SignIn.user_id))).all()
    assert kept == [bob.user_id]
    recorded = await events(database)
    assert "Ada's own browser" not in str(recorded)
    assert [data.get("device") for kind, _, data in recorded if kind == "auth.session.started.v1"] == [None, "Browser"]
    assert len((await listed(auth, bobs))["items"]) == 1


async def test_a_browser_that_someone_signed_in_with_is_known_by_a_cookie_that_signs_nobody_in(
    auth: Auth, database: Database, settings: Settings
) -> None:
    ada, bob = auth.users.add("ada@example.com"), auth.users.add("bob@example.com")
    auth.http.headers["User-Agent"] = "Shop's own backend"
    elsewhere = await auth.sign_in(ada)
    browser = Browser(auth)
    browser.http.headers["User-Agent"] = "Firefox"
    redirect_uri = f"{ISSUER}/docs/auth/assets/oauth2-redirect.html"

    async def sign_in(person: Person) -> dict[str, Any] | None:
        """Signs in on the pages with a new browser session. Returns the device that users hears of."""
        for cookie in list(browser.http.cookies.jar):
            if cookie.name == "waybill":
                browser.http.cookies.delete(cookie.name)
        code = await browser.code(person, redirect_uri=redirect_uri)
        assert (await exchange(auth, code, redirect_uri=redirect_uri)).status_code == 200
        device: dict[str, Any] | None = auth.users.requests[-1][0].get("device")
        return device

    assert await sign_in(ada) is None
    [cookie] = [each for each in browser.http.cookies.jar if each.name == "waybill-device"]
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.value is not None
    known = unseal(cookie.value, settings.refresh_token_bytes)
    assert known is not None
    known_id = known[0].id
    assert unseal(cookie.value[:-1] + ("A" if cookie.value[-1] != "A" else "B"), settings.refresh_token_bytes) is None
    assert unseal(cookie.value, b"x" * 32) is None
    device = {"user_id": str(ada.user_id), "id": str(known_id)}
    assert await sign_in(ada) == device
    assert await sign_in(ada) == device
    assert await sign_in(bob) == device  # another's: users ignores it
    assert await started(database) == [
        (False, "Shop's own backend"),
        (True, "Firefox"),
        (False, "Firefox"),
        (False, "Firefox"),
        (False, "Firefox"),
    ]
    page = await listed(auth, elsewhere)
    newest = page["items"][0]
    assert (newest["device"], newest["client_id"], newest["outcome"]) == ("Firefox", "web", "succeeded")
    bare = Browser(auth)
    bare.http.cookies.set("waybill-device", cookie.value)
    assert Forms((await bare.authorize(redirect_uri=redirect_uri)).text).action == "/sign-in"
