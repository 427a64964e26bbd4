"""HTTP to handlers."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import AwareDatetime

from common.errors import Forbidden
from common.security.tokens import INSUFFICIENT_SCOPE
from common.web import ApiRouter, responses
from common.web.headers import IdempotencyKeyHeader, is_not_modified
from common.web.idempotency import IdempotencyKey
from common.web.pagination import Page, PageDep
from common.web.session import SessionDep
from orders import handlers, queries
from orders.deps import (
    ReaderDep,
    may_change_catalogue,
    may_process_orders,
    may_read_catalogue,
    may_read_orders,
    may_write_orders,
    visible_customer,
)
from orders.etags import IF_NONE_MATCH, IfMatch, etag, expected_versions
from orders.models import Money, OrderStatus
from orders.schemas import (
    CancelOrder,
    OrderOut,
    PlaceOrder,
    ProductIn,
    ProductOut,
    ShipOrder,
    SkuPath,
    TimelineEntryOut,
    parse_sku,
    parse_version,
)

orders = ApiRouter(prefix="/orders", tags=["orders"])
products = ApiRouter(prefix="/products", tags=["products"])


# What is called most reads the request's state directly: each dependency costs 5 %.
@orders.post("", status_code=201, dependencies=[may_write_orders], responses=responses(409))
async def place_order(
    body: PlaceOrder,
    request: Request,
    response: Response,
    *,
    idempotency_key: IdempotencyKeyHeader = None,
) -> OrderOut:
    """Places an order at the prices of the catalogue. With an `Idempotency-Key`, the request can be repeated safely."""
    order = await handlers.place_order(
        request.state.database,
        request.state.insert_order,
        customer_id=request.state.principal.user_id,
        lines=[(line.sku, line.quantity) for line in body.lines],
        note=body.note,
        key=IdempotencyKey.of(idempotency_key, body, always=("note",)),
    )
    response.headers["Location"] = f"/orders/{order.id}"
    return _respond(order, response)


@orders.get("")
async def list_orders(
    page: PageDep,
    principal: ReaderDep,
    session: SessionDep,
    *,
    status: OrderStatus | None = None,
    customer_id: Annotated[UUID | None, Query(description="Only this customer's orders (staff only).")] = None,
    updated_since: Annotated[
        AwareDatetime | None, Query(description="Only orders that were placed or changed at this time or later.")
    ] = None,
) -> Page[OrderOut]:
    """Lists the caller's orders, newest first; for staff, the orders of all customers."""
    visible = visible_customer(principal)
    if visible is not None and customer_id not in (None, visible):
        headers = {"WWW-Authenticate": INSUFFICIENT_SCOPE}
        raise Forbidden("Only staff may request another customer's orders.", headers=headers)
    fetch = partial(
        queries.orders, session, customer_id=visible or customer_id, status=status, updated_since=updated_since
    )
    return await page.load(fetch, by={"id": UUID}, item=OrderOut.model_validate)


@orders.get(
    "/{order_id}",
    dependencies=[may_read_orders],
    response_model=OrderOut,
    responses=responses(404) | {304: {"description": "Not Modified"}},
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def get_order(order_id: UUID, request: Request) -> Response:
    """Returns an order. Customers can read their own orders only."""
    customer_id = visible_customer(request.state.principal)
    order = await queries.read_order(request.state.driver, order_id, customer_id=customer_id)
    # Private, and revalidated before each use (RFC 9111 §5.2.2.4): otherwise the tag would be of no use.
    headers = {"ETag": etag(order.version), "Cache-Control": "private, no-cache"}
    if is_not_modified(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    # A response, not the model: FastAPI would validate and copy the model again.
    return Response(OrderOut.model_validate(order).model_dump_json(), headers=headers, media_type="application/json")


@orders.get("/{order_id}/events", responses=responses(404))
async def get_timeline(
    order_id: UUID, page: PageDep, principal: ReaderDep, session: SessionDep
) -> Page[TimelineEntryOut]:
    """Lists the order's events, oldest first."""
    fetch = partial(queries.timeline, session, order_id, customer_id=visible_customer(principal))
    return await page.load(fetch, by={"version": parse_version}, item=TimelineEntryOut.model_validate)


@orders.post("/{order_id}/cancel", dependencies=[may_write_orders], responses=responses(404, 409, 412))
async def cancel_order(
    order_id: UUID, request: Request, response: Response, *, body: CancelOrder | None = None, if_match: IfMatch = None
) -> OrderOut:
    """Cancels an order. Customers may cancel while it is `placed`, staff also while it is `confirmed`."""
    order = await handlers.cancel_order(
        request.state.database,
        request.state.change_order,
        order_id,
        customer_id=visible_customer(request.state.principal),
        reason=body.reason if body is not None else None,
        expected=expected_versions(if_match),
    )
    return _respond(order, response)


@orders.post("/{order_id}/confirm", dependencies=[may_process_orders], responses=responses(404, 409, 412))
async def confirm_order(order_id: UUID, request: Request, response: Response, if_match: IfMatch = None) -> OrderOut:
    """Confirms a `placed` order."""
    state, expected = request.state, expected_versions(if_match)
    order = await handlers.confirm_order(state.database, state.change_order, order_id, expected=expected)
    return _respond(order, response)


@orders.post("/{order_id}/ship", dependencies=[may_process_orders], responses=responses(404, 409, 412))
async def ship_order(
    order_id: UUID, body: ShipOrder, request: Request, response: Response, if_match: IfMatch = None
) -> OrderOut:
    """Marks a `confirmed` order as shipped."""
    order = await handlers.ship_order(
        request.state.database,
        request.state.change_order,
        order_id,
        carrier=body.carrier,
        tracking_number=body.tracking_number,
        expected=expected_versions(if_match),
    )
    return _respond(order, response)


@orders.post("/{order_id}/deliver", dependencies=[may_process_orders], responses=responses(404, 409, 412))
async def deliver_order(order_id: UUID, request: Request, response: Response, if_match: IfMatch = None) -> OrderOut:
    """Marks a `shipped` order as delivered."""
    state, expected = request.state, expected_versions(if_match)
    order = await handlers.deliver_order(state.database, state.change_order, order_id, expected=expected)
    return _respond(order, response)


@products.get("", dependencies=[may_read_catalogue])
async def list_products(page: PageDep, session: SessionDep, *, active: bool | None = None) -> Page[ProductOut]:
    """Lists the catalogue by SKU, in the order of the characters' codes."""
    fetch = partial(queries.products, session, active=active)
    return await page.load(fetch, by={"sku": parse_sku}, item=ProductOut.model_validate)


@products.get("/{sku}", dependencies=[may_read_catalogue], responses=responses(404))
async def get_product(sku: SkuPath, session: SessionDep) -> ProductOut:
    """Returns a product, on sale or not."""
    return ProductOut.model_validate(await queries.product(session, sku))


@products.put(
    "/{sku}",
    dependencies=[may_change_catalogue],
    responses={201: {"model": ProductOut, "description": "The product is new"}},
)
async def put_product(sku: SkuPath, body: ProductIn, session: SessionDep, response: Response) -> ProductOut:
    """Creates or replaces a product. Orders keep the name and price they were placed with."""
    price = Money(body.price.amount, body.price.currency)
    product, is_new = await handlers.put_product(session, sku, name=body.name, price=price, active=body.active)
    if is_new:
        response.status_code = 201
        response.headers["Location"] = f"/products/{sku}"
    return ProductOut.model_validate(product)


def _respond(order: queries.OrderView, response: Response) -> OrderOut:
    response.headers["ETag"] = etag(order.version)
    return OrderOut.model_validate(order)
