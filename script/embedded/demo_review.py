"""What people and a program have decided in the demo, going by the sample set's labels.

People decide through the domain's `review`, which is what the buttons call, each under their own name; a program
decides through the API with its key.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

import requests
import sqlalchemy as sa
from sqlalchemy.orm import Session

from embedded.demo_history import STALE
from embedded.demo_leads import samples
from webapp.leads import review
from webapp.leads.errors import LeadError
from webapp.leads.states import UNDELIVERABLE_INTENTS, DecisionAction, Intent, LeadStatus, Priority, RejectReason
from webapp.models.lead import Lead

BY_PEOPLE = {
    (LeadStatus.NEW_DRAFT, DecisionAction.APPROVE): 12,
    (LeadStatus.NEW_DRAFT, DecisionAction.OVERRIDE): 4,
    (LeadStatus.NEW_DRAFT, DecisionAction.REJECT): 4,
    (LeadStatus.NEW_ESCALATE, DecisionAction.APPROVE): 5,
    (LeadStatus.NEW_ESCALATE, DecisionAction.OVERRIDE): 4,
    (LeadStatus.NEW_ESCALATE, DecisionAction.REJECT): 2,
    (LeadStatus.NEW_AUTO, DecisionAction.APPROVE): 5,
    (LeadStatus.NEW_AUTO, DecisionAction.OVERRIDE): 1,
    (LeadStatus.NEW_AUTO, DecisionAction.REJECT): 2,
}
BY_PROGRAM = {
    (LeadStatus.NEW_DRAFT, DecisionAction.APPROVE): 4,
    (LeadStatus.NEW_DRAFT, DecisionAction.OVERRIDE): 1,
    (LeadStatus.NEW_DRAFT, DecisionAction.REJECT): 1,
}
DECISIONS = sum(BY_PEOPLE.values()) + sum(BY_PROGRAM.values())

#: Labels of messages that are nobody's request; the reason closest to each.
_NO_LEAD = {
    Intent.SPAM: (RejectReason.SPAM, None),
    Intent.VENDOR_PITCH: (RejectReason.OTHER, "they want to sell us something"),
    Intent.JOB: (RejectReason.OTHER, "an application; passed on to HR"),
    Intent.ENGAGEMENT: (RejectReason.OTHER, "only a reaction, nothing to follow up"),
    Intent.THANKS: (RejectReason.OTHER, "only a thank-you"),
}

Step = tuple[Lead, dict[str, Any]]
"""A lead and what a person who read it would decide: the arguments of `review.decide`."""


def by_people(
    session: Session, workspace_id: uuid.UUID, people: Sequence[review.Actor], on_decided: Callable[[], None]
) -> None:
    """Each in turn. Without an undo window: it has passed for what is history."""
    actors = cycle(people)
    for lead, wanted in _chosen(session, workspace_id, BY_PEOPLE):
        review.decide(
            session, workspace_id, lead.id, version=lead.version, actor=next(actors), undo_seconds=0, **wanted
        )
        session.commit()
        on_decided()


def by_program(session: Session, workspace_id: uuid.UUID, url: str, key: str, on_decided: Callable[[], None]) -> None:
    """Held for the undo window, as any new decision; the last approval is thought better of, which withdraws it."""
    last = None
    with requests.Session() as http:
        http.trust_env = False
        http.headers["X-API-Key"] = key
        for lead, wanted in list(_chosen(session, workspace_id, BY_PROGRAM)):
            body = {name: value for name, value in wanted.items() if name != "reject_reason"} | {
                "version": lead.version
            }
            if reason := wanted.get("reject_reason"):
                body["reason"] = wanted.get("reason") or reason
            decided = _post(http, url, lead.id, body)
            if decided["status"] == LeadStatus.APPROVED and lead.intent not in UNDELIVERABLE_INTENTS:
                last = decided
            on_decided()
        if last:
            _post(http, url, last["id"], {"action": "reject", "reason": "duplicate", "version": last["version"]})


def _post(http: requests.Session, url: str, lead_id: object, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(f"{url}/api/v1/leads/{lead_id}/decision", json=body, timeout=20)
    if answer.status_code != 200:
        raise LeadError(f"a decision was answered {answer.status_code}: {answer.text[:300]}")
    return dict(answer.json())


def _chosen(
    session: Session, workspace_id: uuid.UUID, quota: dict[tuple[LeadStatus, DecisionAction], int]
) -> Iterator[Step]:
    """Leads in the order in which they came, until each quota is used up."""
    labels = {sample["message"]: sample for sample in samples()}
    left = Counter(quota)
    undecided = (
        sa.select(Lead)
        .options(sa.orm.defer(Lead.search))
        .where(
            Lead.workspace_id == workspace_id,
            Lead.status.in_({status for status, _ in quota}),
            Lead.created_at > datetime.now(UTC) - min(STALE),  # those are the overlooked ones
            Lead.suppression_id.is_(None),
        )
        .order_by(Lead.created_at, Lead.id)
    )
    for number, lead in enumerate(session.scalars(undecided).all()):
        label = labels.get(lead.message)
        if label is None:
            continue  # somebody else's, from before the demo
        wanted = _opinion(lead, Intent(label["intent"]), Priority(label["priority"]), knows_them=number % 4 == 1)
        place = (lead.status, wanted["action"])
        if left[place] > 0:
            left[place] -= 1
            yield lead, wanted


def _opinion(lead: Lead, intent: Intent, priority: Priority, *, knows_them: bool) -> dict[str, Any]:
    """The label's verdict; about some leads a person knows something that no message says."""
    if intent in _NO_LEAD:
        reason, words = _NO_LEAD[intent]
        return {"action": DecisionAction.REJECT, "reject_reason": reason, "reason": words}
    changed: dict[str, Any] = {}
    if intent is not lead.intent:
        changed["intent"] = intent
    if priority is not lead.priority:
        changed["priority"] = priority
    if not changed and knows_them and lead.priority is not Priority.P0:
        sooner = list(Priority)[list(Priority).index(lead.priority) - 1]
        changed = {"priority": sooner, "reason": "I know them: they decide fast and should not wait."}
    return {"action": DecisionAction.OVERRIDE, **changed} if changed else {"action": DecisionAction.APPROVE}
