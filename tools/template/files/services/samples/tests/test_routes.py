import httpx

from common.db.database import new_id
from common.testing.token_issuer import TokenIssuer


async def test_a_new_item_is_shown_to_its_owner_alone(client: httpx.AsyncClient, issuer: TokenIssuer) -> None:
    owner = issuer.bearer(new_id())
    created = await client.post("/samples", json={"name": "First"}, headers=owner)
    assert created.status_code == 201, created.text
    location = created.headers["Location"]
    assert (await client.get(location, headers=owner)).json() == created.json()
    assert (await client.get(location, headers=issuer.bearer())).status_code == 404


async def test_without_a_token_nothing_is_created(client: httpx.AsyncClient) -> None:
    assert (await client.post("/samples", json={"name": "First"})).status_code == 401


async def test_a_name_is_needed(client: httpx.AsyncClient, issuer: TokenIssuer) -> None:
    assert (await client.post("/samples", json={"name": ""}, headers=issuer.bearer())).status_code == 422
