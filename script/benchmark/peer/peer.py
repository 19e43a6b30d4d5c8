"""The reference a user would otherwise build: FastAPI + SQLAlchemy (async) + asyncpg + Redis Streams.

Same work as our intake: authenticate nothing, validate a lead, check an Idempotency-Key in Redis, insert the lead and
commit, publish an event; a consumer classifies the note with ordered keyword rules and stores the insight.

    pip install -r requirements.txt
    DATABASE_URL=postgresql+asyncpg://USER@HOST/DB REDIS_URL=redis://HOST:6379/0 python peer.py init
    … uvicorn peer:app --workers 2 --port 8100        (POST /leads/, GET /leads/{id}/insight)
    … python peer.py worker                            (one consumer process; start as many as you like)

It is the yardstick for a ratio measured in one run on one machine: our intake and our time-to-status against this one's.
"""

import asyncio
import hashlib
import json
import os
import sys
import uuid
from datetime import datetime, timezone

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, EmailStr
from redis.asyncio import Redis, ResponseError
from sqlalchemy import ForeignKey, String, UniqueConstraint, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql+asyncpg://postgres@localhost/peer")
REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
STREAM, GROUP = "peer:leads", "peer:triage"

engine = create_async_engine(DATABASE_URL, pool_size=10, max_overflow=0)
Session = async_sessionmaker(engine, expire_on_commit=False)
redis = Redis.from_url(REDIS_URL, decode_responses=True)


class Base(DeclarativeBase):
    pass


class Lead(Base):
    __tablename__ = "peer_leads"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    email: Mapped[str | None] = mapped_column(String(255), index=True)
    phone: Mapped[str | None] = mapped_column(String(64), index=True)
    name: Mapped[str | None] = mapped_column(String(255))
    note: Mapped[str]
    source: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(
        default=lambda: datetime.now(timezone.utc).replace(tzinfo=None)
    )


class Insight(Base):
    __tablename__ = "peer_insights"
    __table_args__ = (UniqueConstraint("lead_id", "content_hash"),)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    lead_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("peer_leads.id"), index=True)
    content_hash: Mapped[str] = mapped_column(String(64))
    intent: Mapped[str] = mapped_column(String(32))
    priority: Mapped[str] = mapped_column(String(2))
    confidence: Mapped[float]


class LeadIn(BaseModel):
    note: str
    email: EmailStr | None = None
    phone: str | None = None
    name: str | None = None
    source: str | None = None


app = FastAPI()


async def session():
    async with Session() as s:
        yield s


@app.post("/leads/", status_code=201)
async def create_lead(
    body: LeadIn, idempotency_key: uuid.UUID = Header(), db: AsyncSession = Depends(session)
):
    cache_key = f"peer:idem:{idempotency_key}"
    seen = await redis.get(cache_key)
    if seen:
        seen = json.loads(seen)
        if seen["request"] != body.model_dump():
            raise HTTPException(409, "Idempotency-Key reused with another body")
        return JSONResponse(seen["response"], 200)
    lead = Lead(**body.model_dump())
    db.add(lead)
    await db.commit()
    response = body.model_dump() | {"id": str(lead.id), "created_at": lead.created_at.isoformat()}
    await redis.setex(cache_key, 86400, json.dumps({"request": body.model_dump(), "response": response}))
    await redis.xadd(STREAM, {"lead_id": str(lead.id), "note": body.note})
    return response


@app.get("/leads/{lead_id}/insight")
async def insight(lead_id: uuid.UUID, db: AsyncSession = Depends(session)):
    row = await db.scalar(select(Insight).where(Insight.lead_id == lead_id))
    if row is None:
        raise HTTPException(404, "no insight")
    return {
        "id": str(row.id),
        "lead_id": str(lead_id),
        "intent": row.intent,
        "priority": row.priority,
        "confidence": row.confidence,
    }


RULES = [
    ("buy", "P1", ("price", "pricing", "cost", "buy", "quote")),
    ("support", "P2", ("help", "support", "bug", "error")),
    ("job", "P3", ("job", "career", "resume")),
    ("spam", "P3", ("http://", "https://", "www.")),
]


def classify(note: str) -> tuple[str, str, float]:
    text = note.lower()
    for intent, priority, words in RULES:
        hits = sum(w in text for w in words)
        if hits:
            return (
                intent,
                "P0" if "urgent" in text or "asap" in text else priority,
                min(0.3 + 0.2 * hits, 0.9),
            )
    return "other", "P2", 0.3


async def handle(fields: dict) -> None:
    intent, priority, confidence = classify(fields["note"])
    async with Session() as s:
        s.add(
            Insight(
                lead_id=uuid.UUID(fields["lead_id"]),
                content_hash=hashlib.sha256(fields["note"].encode()).hexdigest(),
                intent=intent,
                priority=priority,
                confidence=confidence,
            )
        )
        try:
            await s.commit()
        except IntegrityError:
            await s.rollback()


async def worker() -> None:
    try:
        await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except ResponseError:
        pass
    me = uuid.uuid4().hex
    while True:
        for _, messages in await redis.xreadgroup(GROUP, me, {STREAM: ">"}, count=32, block=1000) or []:
            await asyncio.gather(*(handle(fields) for _, fields in messages))
            await redis.xack(STREAM, GROUP, *(mid for mid, _ in messages))


async def init() -> None:
    async with engine.begin() as c:
        await c.run_sync(Base.metadata.drop_all)
        await c.run_sync(Base.metadata.create_all)
    await redis.delete(STREAM)


if __name__ == "__main__":
    asyncio.run({"init": init, "worker": worker}[sys.argv[1]]())
