"""What tests of follow-up tasks share: snapshots, a model that answers what it is told, workspaces that use it."""

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.fakes.llm import TOKEN, LlmFake
from webapp.clients.copywriter import ChatCopywriter
from webapp.leads import flags
from webapp.leads.copywriting import Writing
from webapp.leads.flags import Flag
from webapp.leads.ports import LeadSnapshot
from webapp.leads.states import Intent, LeadStatus, NextAction, Priority

MESSAGE = "We want 50 seats of the Enterprise plan before Friday, what is the price? Jane, +84 912 345 678"
ANSWER: dict[str, Any] = {
    "summary": "They want 50 seats of the Enterprise plan before Friday and ask for the price.",
    "points": ["50 seats of the Enterprise plan"],
    "steps": [{"step": "call", "about": ""}, {"step": "quote", "about": "50 seats"}, {"step": "note", "about": ""}],
}


def snapshot(message: str = MESSAGE, **over: Any) -> LeadSnapshot:
    values: dict[str, Any] = {
        "lead_id": UUID(int=1), "workspace_id": UUID(int=2), "external_id": None, "name": "Jane Roe", "first_name": None,
        "last_name": None, "email": "jane@acme.example", "phone": None, "phone_e164": "+84912345678", "company": "Acme",
        "job_title": None, "city": None, "message": message, "lang": "en", "source": "website_form", "budget": None,
        "platform": None, "author_name": None, "author_id": None, "status": LeadStatus.APPROVED,
        "intent": Intent.INQUIRY_PRICE, "priority": Priority.P1, "next_action": NextAction.EMAIL, "confidence": 0.9,
        "score": 70, "qualified": True, "reasons": (), "attribution": {}, "consent": None, "assignee_name": None,
        "assignee_email": None, "decided_by": "Ana", "created_at": datetime(2026, 11, 20, tzinfo=UTC),
        "event_at": datetime(2026, 11, 20, tzinfo=UTC),
    }  # fmt: skip
    return LeadSnapshot(**(values | over))


@contextmanager
def model(
    answer: Any = ANSWER, *, timeout: float = 5.0, patience: float = 10.0, kind: Any = LlmFake, **fake: Any
) -> Any:
    """(the stand-in, a Writing that asks it). ``answer``: what it says, or ``(messages, schema)`` → that."""
    said = answer if callable(answer) else lambda messages, schema: answer
    with kind(answer=said, **fake) as there:
        writer = ChatCopywriter(model="fake-model", api_key=TOKEN, base_url=there.url, timeout=timeout)
        yield there, Writing(writer, patience=patience)


def switch_on(session: Any, workspace: Any) -> None:
    flags.choose(session, workspace.id, Flag.LLM_COPYWRITING, True, actor="Ann")
    session.commit()
