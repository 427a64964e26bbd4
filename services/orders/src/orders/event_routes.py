"""The events of orders over HTTP."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Request, Response

from common.feed.http import (
    PAGE_RESPONSE,
    STREAM_RESPONSE,
    FeedPage,
    FeedStream,
    PageParams,
    StreamParams,
    answer_page,
    answer_stream,
)
from common.feed.log import View
from common.web import ApiRouter, responses
from common.web.openapi import either_scope
from orders import queries
from orders.deps import may_read_events, may_read_orders, visible_customer, visible_events
from orders.events import TYPES

events = ApiRouter(tags=["events"])

PageParamsDep = Annotated[PageParams, Depends(FeedPage(TYPES))]
StreamParamsDep = Annotated[StreamParams, Depends(FeedStream(TYPES))]
_SCOPES: Final[dict[str, Any]] = either_scope("orders:read", "events:read")


@events.get(
    "/events",
    dependencies=[may_read_events],
    response_class=Response,
    responses=PAGE_RESPONSE,
    openapi_extra=_SCOPES,
)
async def list_events(request: Request, params: PageParamsDep) -> Response:
    """Returns events after `after`, in the order of publishing. A person reads those of their own orders."""
    return await answer_page(request, params, visible_events(request.state.principal))


@events.get(
    "/events/stream",
    dependencies=[may_read_events],
    response_class=Response,
    responses=STREAM_RESPONSE,
    openapi_extra=_SCOPES,
)
async def stream_events(request: Request, params: StreamParamsDep) -> Response:
    """Streams events as they are published. A person reads those of their own orders."""
    return await answer_stream(request, params, visible_events(request.state.principal))


@events.get(
    "/orders/{order_id}/stream",
    dependencies=[may_read_orders],
    response_class=Response,
    responses=STREAM_RESPONSE | responses(404),
)
async def stream_order(order_id: UUID, request: Request, params: StreamParamsDep) -> Response:
    """Streams the events of one order, for whoever may read the order."""
    customer_id = visible_customer(request.state.principal)
    await queries.read_order(request.state.driver, order_id, customer_id=customer_id)
    return await answer_stream(request, params, View(subject=str(order_id)))
