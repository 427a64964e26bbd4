"""The ceilings: FastAPI with a single statement, and the application of a usual tutorial.

Both do less than `POST /orders` of Waybill: no authentication, prices from the client, no event, no idempotency.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from fastapi import BackgroundTasks, FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, func
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

POOL = 5
MAIL_SECONDS = 0.02


class NewRecord(BaseModel):
    customer_id: UUID
    amount: int
    note: str | None = None


class Record(NewRecord):
    id: int
    created_at: datetime


RECORDS = """
    CREATE TABLE records (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id uuid NOT NULL,
        amount bigint NOT NULL, note text, created_at timestamptz NOT NULL DEFAULT now())"""


def raw(database_url: str) -> FastAPI:
    """`POST /records` is one INSERT … RETURNING on asyncpg, `GET /records/{id}` one SELECT, `GET /` no query."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(database_url, min_size=POOL, max_size=POOL) as app.state.pool:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def hello() -> dict[str, str]:
        return {"message": "hello"}

    @app.post("/records", status_code=201)
    async def insert(new: NewRecord) -> Record:
        row = await app.state.pool.fetchrow(
            "INSERT INTO records (customer_id, amount, note) VALUES ($1, $2, $3) RETURNING *",
            new.customer_id,
            new.amount,
            new.note,
        )
        return Record(**row)

    @app.get("/records/{record_id}")
    async def select(record_id: int) -> Record:
        return Record(**await app.state.pool.fetchrow("SELECT * FROM records WHERE id = $1", record_id))

    return app


class Base(DeclarativeBase):
    pass


class TutorialOrder(Base):
    __tablename__ = "tutorial_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[UUID]
    note: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lines: Mapped[list["TutorialLine"]] = relationship(lazy="selectin")


class TutorialLine(Base):
    __tablename__ = "tutorial_lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("tutorial_orders.id"))
    sku: Mapped[str]
    quantity: Mapped[int]
    amount: Mapped[int]


class LineBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    sku: str
    quantity: int
    amount: int


class OrderBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    customer_id: UUID
    note: str | None = None
    lines: list[LineBody]


class OrderAnswer(OrderBody):
    id: int
    created_at: datetime


def tutorial(database_url: str) -> FastAPI:
    """`POST /orders` with SQLAlchemy's ORM and its defaults, and a background task of 20 ms for the mail."""
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://"))
    session_of = async_sessionmaker(engine, expire_on_commit=False)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    def send_mail() -> None:
        time.sleep(MAIL_SECONDS)  # a mail server nearby

    @app.post("/orders", status_code=201)
    async def place(body: OrderBody, background: BackgroundTasks) -> OrderAnswer:
        session: AsyncSession
        async with session_of() as session:
            lines = [TutorialLine(**line.model_dump()) for line in body.lines]
            order = TutorialOrder(customer_id=body.customer_id, note=body.note, lines=lines)
            session.add(order)
            await session.commit()
            await session.refresh(order)
        background.add_task(send_mail)
        return OrderAnswer.model_validate(order)

    return app


APPS: dict[str, Any] = {"raw": raw, "tutorial": tutorial}
