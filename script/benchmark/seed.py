"""Fills a workspace with leads, for pages and backlogs of a real size."""

import itertools
import json
import uuid
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

from benchmark.stack import ROOT, Stack
from webapp.config import load_settings
from webapp.engine import make_engine
from webapp.leads import intake, intake_sql
from webapp.leads.states import Door
from webapp.models import Workspace
from webapp.security.keys import tenant_of

SAMPLES = Path(ROOT) / "tests" / "data" / "leads.jsonl"
CHUNK = 1_000


def seed(stack: Stack, number: int, *, run_status: str = "success") -> None:
    """``number`` leads judged by the real rules from the sample messages, spread over the last 30 days."""
    engine = make_engine(load_settings(stack.env), pool_size=1)
    samples = [json.loads(line) for line in SAMPLES.read_text(encoding="utf-8").splitlines()]
    with Session(engine) as session:
        workspace = session.query(Workspace).filter_by(name="default").one()
        tenant = tenant_of(workspace, default_region="US", duplicate_days=30, idempotency_days=30)
        # One judged row per sample; the copies differ in their ids, person and age, as real leads do.
        judged = [intake.row_for(tenant, _lead(sample)) for sample in samples]
        for start in range(0, number, CHUNK):
            numbers = range(start, min(start + CHUNK, number))
            rows = [_copy(judged[n % len(judged)]) for n in numbers]
            intake_sql.insert_signals(session, rows)
            session.commit()
        session.execute(
            text(
                "UPDATE leads AS l SET created_at = v.at, sla_due_at = l.sla_due_at - (l.created_at - v.at), "
                "route_state = CASE WHEN v.chance < 0.02 THEN 'manual' WHEN v.chance < 0.1 THEN 'backlog' END "
                "FROM (SELECT id, now() - random() * interval '30 days' AS at, random() AS chance FROM leads "
                "WHERE external_message_id LIKE 'seed-%') AS v WHERE l.id = v.id"
            )
        )
        session.execute(text("UPDATE runs SET status = :status WHERE status = 'queued'"), {"status": run_status})
        session.commit()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


_numbers = itertools.count(1)


def _lead(sample: dict[str, object]) -> intake.LeadIn:
    return intake.LeadIn(
        door=Door.SOCIAL, platform="facebook", message=str(sample["message"]), source=str(sample["channel"]),
        name=_text(sample["name"]), email=_text(sample["email"]), phone=_text(sample["phone"]),
        company=_text(sample["company"]), external_message_id="seed",
    )  # fmt: skip


def _text(value: object) -> str | None:
    return str(value) if value else None


def _copy(row: dict[str, object]) -> dict[str, object]:
    number = next(_numbers)
    ids = {name: uuid.uuid4() for name in ("id", "person_new_id", "run_id", "event_id")}
    email = f"seed{number}@example.com"
    return row | ids | {
        "external_message_id": f"seed-{uuid.uuid4().hex}", "identity_key": email, "email": email,
        "email_normalized": email,
    }  # fmt: skip
