"""HTTP to handlers."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import Query, Request, Response

from common.errors import Forbidden
from common.security.tokens import INSUFFICIENT_SCOPE
from common.web import ApiRouter, responses
from common.web.headers import IdempotencyKeyHeader, is_not_modified
from common.web.idempotency import IdempotencyKey
from common.web.pagination import Page, PageDep
from orders import handlers, queries
from orders.deps import (
    ReaderDep,
    SessionDep,
    WriterDep,
    catalogue_staff,
    may_read,
    may_write,
    order_desk,
    signed_in,
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
    read_sku,
    read_version,
)

orders = ApiRouter(prefix="/orders", tags=["orders"])
products = ApiRouter(prefix="/products", tags=["products"])


# The two routes that are called most read the request's state themselves: each dependency costs them 5 %.
@orders.post("", status_code=201, dependencies=[may_write], responses=responses(409))
async def place_order(
    body: PlaceOrder,
    request: Request,
    response: Response,
    *,
    idempotency_key: IdempotencyKeyHeader = None,
) -> OrderOut:
    """Prices come from the catalogue. Send an `Idempotency-Key` to be able to repeat the request safely."""
    order = await handlers.place_order(
        request.state.database,
        request.state.insert_order,
        customer_id=request.state.principal.user_id,
        lines=[(line.sku, line.quantity) for line in body.lines],
        note=body.note,
        key=IdempotencyKey.of(idempotency_key, body),
    )
    response.headers["Location"] = f"/orders/{order.id}"
    return _told(order, response)


@orders.get("")
async def list_orders(
    page: PageDep,
    principal: ReaderDep,
    session: SessionDep,
    status: OrderStatus | None = None,
    customer_id: Annotated[UUID | None, Query(description="For staff: only this customer's.")] = None,
) -> Page[OrderOut]:
    """One's own orders, newest first; for staff, everybody's."""
    visible = visible_customer(principal)
    if visible is not None and customer_id not in (None, visible):
        headers = {"WWW-Authenticate": INSUFFICIENT_SCOPE}
        raise Forbidden("Only staff may ask for another customer's orders.", headers=headers)
    fetch = partial(queries.orders, session, customer_id=visible or customer_id, status=status)
    return await page.load(fetch, by={"id": UUID}, item=OrderOut.model_validate)


@orders.get(
    "/{order_id}",
    dependencies=[may_read],
    response_model=OrderOut,
    responses=responses(404) | {304: {"description": "Not Modified"}},
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def get_order(order_id: UUID, request: Request) -> Response:
    customer_id = visible_customer(request.state.principal)
    order = await queries.read_order(request.state.driver, order_id, customer_id=customer_id)
    # For its customer alone to keep, and to ask about before each use (RFC 9111 §5.2.2.4): a tag is of use only so.
    headers = {"ETag": etag(order.version), "Cache-Control": "private, no-cache"}
    if is_not_modified(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    # The answer itself: FastAPI would validate once more what was just made, and copy it into another.
    return Response(OrderOut.model_validate(order).model_dump_json(), headers=headers, media_type="application/json")


@orders.get("/{order_id}/events", responses=responses(404))
async def get_timeline(
    order_id: UUID, page: PageDep, principal: ReaderDep, session: SessionDep
) -> Page[TimelineEntryOut]:
    """What happened to the order, oldest first."""
    fetch = partial(queries.timeline, session, order_id, customer_id=visible_customer(principal))
    return await page.load(fetch, by={"version": read_version}, item=TimelineEntryOut.model_validate)


@orders.post("/{order_id}/cancel", responses=responses(404, 409, 412))
async def cancel_order(
    order_id: UUID,
    principal: WriterDep,
    session: SessionDep,
    response: Response,
    *,
    body: CancelOrder | None = None,
    if_match: IfMatch = None,
) -> OrderOut:
    """Customers may cancel what is `placed`, staff also what is `confirmed`."""
    order = await handlers.cancel_order(
        session,
        order_id,
        customer_id=visible_customer(principal),
        reason=body.reason if body is not None else None,
        expected=expected_versions(if_match),
    )
    return _told(order, response)


@orders.post("/{order_id}/confirm", dependencies=[order_desk], responses=responses(404, 409, 412))
async def confirm_order(order_id: UUID, session: SessionDep, response: Response, if_match: IfMatch = None) -> OrderOut:
    order = await handlers.confirm_order(session, order_id, expected=expected_versions(if_match))
    return _told(order, response)


@orders.post("/{order_id}/ship", dependencies=[order_desk], responses=responses(404, 409, 412))
async def ship_order(
    order_id: UUID, body: ShipOrder, session: SessionDep, response: Response, if_match: IfMatch = None
) -> OrderOut:
    order = await handlers.ship_order(
        session,
        order_id,
        carrier=body.carrier,
        tracking_number=body.tracking_number,
        expected=expected_versions(if_match),
    )
    return _told(order, response)


@orders.post("/{order_id}/deliver", dependencies=[order_desk], responses=responses(404, 409, 412))
async def deliver_order(order_id: UUID, session: SessionDep, response: Response, if_match: IfMatch = None) -> OrderOut:
    order = await handlers.deliver_order(session, order_id, expected=expected_versions(if_match))
    return _told(order, response)


@products.get("", dependencies=[signed_in])
async def list_products(page: PageDep, session: SessionDep, *, active: bool | None = None) -> Page[ProductOut]:
    """By SKU."""
    fetch = partial(queries.products, session, active=active)
    return await page.load(fetch, by={"sku": read_sku}, item=ProductOut.model_validate)


@products.get("/{sku}", dependencies=[signed_in], responses=responses(404))
async def get_product(sku: SkuPath, session: SessionDep) -> ProductOut:
    return ProductOut.model_validate(await queries.product(session, sku))


@products.put(
    "/{sku}",
    dependencies=[catalogue_staff],
    responses={201: {"model": ProductOut, "description": "New in the catalogue"}},
)
async def put_product(sku: SkuPath, body: ProductIn, session: SessionDep, response: Response) -> ProductOut:
    """Adds a product to the catalogue or changes it. Orders keep the name and price they were placed with."""
    price = Money(body.price.amount, body.price.currency)
    product, is_new = await handlers.put_product(session, sku, name=body.name, price=price, active=body.active)
    if is_new:
        response.status_code = 201
        response.headers["Location"] = f"/products/{sku}"
    return ProductOut.model_validate(product)


def _told(order: queries.OrderView, response: Response) -> OrderOut:
    response.headers["ETag"] = etag(order.version)
    return OrderOut.model_validate(order)
