"""A shop's web door with FastAPI: an order is placed in one transaction, can be waited for, and a clerk approves it.

uvicorn --factory examples.shop_api:create_api
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated
from uuid import NAMESPACE_URL, UUID, uuid5

from fastapi import FastAPI, Header, HTTPException, Query
from psycopg import errors
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from pydantic import BaseModel, Field

from pipelines.services.order import place_order
from schemas.records.order import OrderApproved, OrderLine, OrderPlaced
from towpath.client import AsyncClient, Client, InstanceStatus, NotAnswered, NotEnded, Started
from towpath.settings import Settings

Text = Annotated[str, Field(pattern=r"^[^\x00]+$")]
"""Text that PostgreSQL holds: it has no zero bytes."""


class Line(BaseModel):
    """A line of a basket."""

    sku: Text
    quantity: int = Field(ge=1)
    unit_price_cents: int = Field(ge=1)


class Basket(BaseModel):
    """What a customer orders."""

    customer_id: Text
    card_token: Text
    lines: list[Line] = Field(min_length=1)


class Accepted(BaseModel):
    """An order that was accepted; `saga_id` follows it to its end."""

    order_id: str
    saga_id: str


class SagaAnswer(BaseModel):
    """How an order's saga stands."""

    saga_id: str
    key: str
    status: str
    reason: str | None
    waiting_for: str | None

    @classmethod
    def of(cls, standing: InstanceStatus) -> "SagaAnswer":
        """Return what the API tells of an instance."""
        return cls(
            saga_id=standing.saga_id,
            key=standing.key,
            status=standing.status,
            reason=standing.reason,
            waiting_for=standing.waiting_for,
        )


class Approval(BaseModel):
    """Who approves an order that is above the limit."""

    approver: Text


def create_api(settings: Settings | None = None) -> FastAPI:
    """Return the API. It needs the order database and the views, neither Kafka nor a worker."""
    client = Client.load(settings)
    postgres = client.settings.postgres
    options, url = postgres.connection_options(), postgres.database_url("order")
    pool = ConnectionPool(url, kwargs=options, min_size=1, max_size=8, open=False)
    async_pool = AsyncConnectionPool(url, kwargs=options, min_size=1, max_size=8, open=False)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with pool:
            async with async_pool:
                yield

    api = FastAPI(title="CraftyGoods", lifespan=lifespan)

    @api.post("/orders", status_code=202)
    def post_order(basket: Basket, idempotency_key: Annotated[str, Header()]) -> Accepted:
        """Accept an order. The same key again is the same order: whoever lost the answer may simply ask again."""
        event_id = uuid5(NAMESPACE_URL, f"order:{basket.customer_id}:{idempotency_key}")
        order = OrderPlaced(
            order_id=f"order-{event_id.hex[:12]}",
            customer_id=basket.customer_id,
            lines=tuple(OrderLine(**line.model_dump()) for line in basket.lines),
            total_cents=sum(line.quantity * line.unit_price_cents for line in basket.lines),
            currency="EUR",
            card_token=basket.card_token,
            placed_at=datetime.now(UTC),
        )
        started = Started.by("place_order", order.order_id, event_id)
        try:
            with pool.connection() as connection:
                place_order(connection, client.codec, order, event_id=event_id)
        except errors.UniqueViolation:
            pass  # it was accepted before
        return Accepted(order_id=order.order_id, saga_id=started.saga_id)

    @api.get("/sagas/{saga_id}")
    def get_saga(
        saga_id: UUID,
        wait_seconds: Annotated[float, Query(ge=0, le=30, description="How long to wait for an ending.")] = 0,
    ) -> SagaAnswer:
        """Tell how an order's saga stands, at once or once it has ended."""
        try:
            standing = client.await_ending(saga_id, timeout_seconds=wait_seconds)
        except NotEnded as error:
            if error.standing is None:
                raise HTTPException(404, "nothing was seen of it yet") from error
            standing = error.standing
        return SagaAnswer.of(standing)

    _add_approval(api, AsyncClient.load(settings), async_pool)
    return api


def _add_approval(api: FastAPI, client: AsyncClient, pool: AsyncConnectionPool) -> None:
    @api.post("/orders/{order_id}/approval")
    async def approve(order_id: Text, approval: Approval) -> SagaAnswer:
        """Approve an order; answers once the saga has taken the approval, or says why it does not."""
        signal = OrderApproved(order_id=order_id, approver=approval.approver)
        async with pool.connection() as connection:
            sent = await client.signal(connection, "place_order", order_id, signal)
        try:
            answer = await client.await_answer(sent, timeout_seconds=30)
        except NotAnswered as error:
            raise HTTPException(504, error.cause) from error
        if answer.refusal is not None:
            raise HTTPException(409, answer.refusal)
        (standing, *_) = await client.find("place_order", order_id)
        return SagaAnswer.of(standing)
