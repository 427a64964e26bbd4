from typing import Annotated, Any, ClassVar

import pytest
from fastapi import APIRouter, Depends, Header, Request

from common.runtime.health import Health
from common.web import ApiRouter, Model, StrictModel, create_api, responses
from common.web.pagination import Page, PageDep


class Guard:
    is_guard = True
    scopes = ("orders:read",)

    async def __call__(self, request: Request) -> None: ...


class Limits:
    statuses: ClassVar = (429,)

    async def __call__(self) -> None: ...


class Order(Model):
    id: int


class Body(StrictModel):
    sku: str


router = ApiRouter(tags=["orders"])


@router.get("/orders", dependencies=[Depends(Guard())])
async def list_orders(page: PageDep) -> Page[Order]:
    """Lists orders."""
    raise NotImplementedError


@router.post("/orders", status_code=201, responses=responses(409), dependencies=[Depends(Limits())])
async def place_order(body: Body, key: Annotated[str | None, Header(alias="Idempotency-Key")] = None) -> Order:
    raise NotImplementedError


@router.get("/orders/{order_id}", responses=responses(304, 404))
async def get_order(order_id: int) -> Order:
    raise NotImplementedError


@router.delete("/everything", status_code=204)
async def delete_everything() -> None: ...


@pytest.fixture
def document(settings: Any) -> dict[str, Any]:
    return create_api(settings, title="Shop", routers=[router], health=Health()).openapi()


def statuses(document: dict[str, Any], method: str, path: str) -> list[str]:
    return sorted(document["paths"][path][method]["responses"])


def test_every_operation_declares_every_status_it_answers(document: dict[str, Any]) -> None:
    assert statuses(document, "get", "/orders") == ["200", "400", "401", "403", "422", "500", "503"]
    assert statuses(document, "post", "/orders") == [
        "201", "400", "409", "413", "415", "422", "429", "500", "503",
    ]  # fmt: skip
    assert statuses(document, "get", "/orders/{order_id}") == ["200", "304", "404", "422", "500", "503"]
    assert statuses(document, "delete", "/everything") == ["204", "413", "500", "503"]


def test_every_error_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    schema = answer["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}
                    assert list(answer["content"]) == ["application/problem+json"]
    schemas = document["components"]["schemas"]
    assert {"Problem", "Fault"} <= set(schemas)
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)


def test_operations_are_named_after_their_functions(document: dict[str, Any]) -> None:
    named = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    assert named == {"list_orders", "place_order", "get_order", "delete_everything"}


def test_only_guarded_operations_require_signing_in_by_code_or_password(document: dict[str, Any]) -> None:
    assert document["paths"]["/orders"]["get"]["security"] == [{"password": ["orders:read"]}]
    assert "security" not in document["paths"]["/orders"]["post"]
    scheme = document["components"]["securitySchemes"]["password"]
    assert scheme["flows"] == {
        "authorizationCode": {
            "authorizationUrl": "/authorize",
            "tokenUrl": "/token",
            "scopes": {"orders:read": ""},
        },
        "password": {"tokenUrl": "/token", "scopes": {"orders:read": ""}},
    }


def test_probes_metrics_and_pages_are_not_in_the_document(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {"/orders", "/orders/{order_id}", "/everything"}


def test_two_operations_of_one_name_are_refused(settings: Any) -> None:
    twice = ApiRouter()
    twice.get("/other")(get_order)
    with pytest.raises(ValueError, match="get_order"):
        create_api(settings, title="Shop", routers=[router, twice], health=Health())


def test_a_route_of_another_class_is_refused(settings: Any) -> None:
    plain = APIRouter()
    plain.get("/plain")(get_order)
    nested = ApiRouter()
    nested.include_router(router)
    for unfit in (plain, nested):
        with pytest.raises(TypeError, match="ApiRoute"):
            create_api(settings, title="Shop", routers=[unfit], health=Health())  # type: ignore[list-item]
