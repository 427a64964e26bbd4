"""A second factor and a stolen token, through the gateway: users checks the code, auth says how somebody signed in."""

import time
from typing import Any

import httpx
import pyotp

from .conftest import Person, SignUp

TOTP = "/me/authenticators/totp"


async def token(client: httpx.AsyncClient, person: Person, **more: str) -> httpx.Response:
    form = {"grant_type": "password", "username": person.email, "password": person.password}
    return await client.post("/token", data=form | more)


async def test_a_person_with_a_second_factor_signs_in_with_a_code(sign_up: SignUp) -> None:
    ada = await sign_up()
    client = ada.client
    added = await client.post(TOTP, headers=ada.bearer)
    assert added.status_code == 201, added.text
    app = pyotp.TOTP(added.json()["secret"])
    step = int(time.time()) // 30
    body = {"code": app.generate_otp(step)}
    confirmed = await client.post(f"{TOTP}/confirm", json=body, headers=ada.bearer)
    assert confirmed.status_code == 200, confirmed.text
    recovery_code = confirmed.json()["recovery_codes"][0]

    def said(answer: httpx.Response) -> Any:
        return answer.status_code, answer.json().get("error")

    assert said(await token(client, ada)) == (400, "mfa_required")
    assert said(await token(client, ada, otp=app.generate_otp(step))) == (400, "invalid_grant")
    assert said(await token(client, ada, password="wrong")) == (400, "invalid_grant")
    signed_in = await token(client, ada, otp=app.generate_otp(step + 1))
    assert said(signed_in) == (200, None)
    assert said(await token(client, ada, otp=recovery_code)) == (200, None)
    assert said(await token(client, ada, otp=recovery_code)) == (400, "invalid_grant")
    headers = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
    sessions = (await client.get("/sessions", headers=headers)).json()["items"]
    assert [session["amr"] for session in sessions] == [["pwd", "otp", "mfa"], ["pwd", "otp", "mfa"], ["pwd"]]
    listed = (await client.get("/me/authenticators", headers=headers)).json()
    assert (len(listed["items"]), listed["recovery_codes_left"]) == (1, 9)
    assert (await client.delete(TOTP, headers=headers)).status_code == 204
    assert said(await token(client, ada)) == (200, None)


async def test_the_links_of_a_change_of_address_are_used_through_the_gateway(gateway: httpx.AsyncClient) -> None:
    for name in ("confirm", "revert"):
        refused = await gateway.post(f"/email-changes/{name}", json={"token": "x" * 43})
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_link")
    for page in ("page", "revert-page"):
        shown = await gateway.get(f"/email-changes/{page}")
        assert (shown.status_code, shown.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
