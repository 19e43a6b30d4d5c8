"""What the clients of CRMs share: by what people are known there, who gets their follow-up, when it is due, what it says."""

import contextlib
import re
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import idna
from markdown_it import MarkdownIt

from webapp.leads import task_template, vocabulary
from webapp.leads.errors import Permanent
from webapp.leads.ports import DeliveryRequest, LeadSnapshot
from webapp.leads.states import Priority
from webapp.leads.task_template import escape, one_line

#: Ids of people; never to be changed.
NAMESPACE = uuid.UUID("6f1b3b1e-5f4c-5d0e-9a51-6c3f0f0d7a11")
FOLLOW_UP = "📞 Sales Follow-up"
_ASSIGNEE_SECONDS = 300.0

#: How soon somebody has to follow up. P0 now, P1 today, P2 this week, P3 whenever (taxonomy: priority).
DUE_IN = {
    Priority.P0: timedelta(hours=1),
    Priority.P1: timedelta(hours=8),
    Priority.P2: timedelta(days=5),
    Priority.P3: timedelta(days=14),
}


def person_id(lead: LeadSnapshot) -> uuid.UUID:
    """For people without an e-mail: by phone, else by their id on the platform, else of this lead alone."""
    if lead.phone_e164:
        key = f"phone:{lead.phone_e164}"
    elif lead.platform and lead.author_id:
        key = f"author:{lead.platform}:{lead.author_id}"
    else:
        key = f"lead:{lead.lead_id}"
    return uuid.uuid5(NAMESPACE, f"{lead.workspace_id}:{key}")


def person_key(lead: LeadSnapshot) -> uuid.UUID:
    """For a CRM in which a field of ours tells people apart: by e-mail, else as :func:`person_id`."""
    if not lead.email:
        return person_id(lead)
    return uuid.uuid5(NAMESPACE, f"{lead.workspace_id}:email:{canonical_email(lead.email)}")


def person_of(request: DeliveryRequest) -> str:
    """What the step before has made, or found."""
    found = request.remote.get("person")
    if not found:
        raise Permanent("the step before left no id for its person")
    return found


def mark(request: DeliveryRequest) -> str:
    """In a record's text, for a CRM that knows no id of ours: by it the record is found again."""
    return f"[lead-ops:{request.delivery_id}]"


class Assignees:
    """Who has an e-mail there, kept for five minutes; used by several threads. ``read``: e-mail → id, or None."""

    def __init__(self, read: Callable[[str], str | None], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._known: dict[str, tuple[str | None, float]] = {}  # e-mail → id, and until when that holds
        self._lock = threading.Lock()

    def id_of(self, email: str | None) -> str | None:
        if not email:
            return None
        wanted = canonical_email(email)
        with self._lock:
            known, until = self._known.get(wanted, (None, float("-inf")))
        if self._clock() < until:
            return known
        found = self._read(wanted)
        with self._lock:
            self._known[wanted] = (found, self._clock() + _ASSIGNEE_SECONDS)
        return found


def canonical_email(email: str) -> str:
    """As CRMs store it: lower case, IDN as punycode, no trailing dot."""
    local, at, domain = email.strip().lower().rpartition("@")
    domain = domain.rstrip(".")
    with contextlib.suppress(idna.IDNAError, UnicodeError):  # not ours to judge: the other side will
        domain = idna.encode(domain, uts46=True).decode()
    return f"{local}{at}{domain}"


def task_markdown(lead: LeadSnapshot) -> str:
    """What a follow-up says where no text was written for it: the template's, in the lead's language."""
    return task_template.render(lead, task_template.language_of(lead, "auto"))


def verdict_title(lead: LeadSnapshot) -> str:
    """Of a note with :func:`verdict_markdown`."""
    return f"Verdict: {vocabulary.INTENT[lead.intent]}, {lead.priority.value}"


def verdict_markdown(lead: LeadSnapshot) -> str:
    """What a note says: the verdict with its reasons."""
    reasons = "\n".join(f"- {escape(one_line(vocabulary.sentence(reason)))}" for reason in lead.reasons)
    return task_markdown(lead) + (f"\n\n## Why\n\n{reasons}" if reasons else "")


def withdrawn_title(lead: LeadSnapshot) -> str:
    """Of a task that was made for a lead that is none after all."""
    return f"✕ Withdrawn — {one_line(lead.display_name)}"


_MARKDOWN = MarkdownIt("commonmark", {"html": False})
_MARKS = re.compile(r"\\([\\`*_\[\]<>#!|~&+=.)-])|\*\*|^#+ ", re.MULTILINE)


def as_html(markdown: str) -> str:
    """A task's text for a CRM that shows HTML; HTML in it is text."""
    return str(_MARKDOWN.render(markdown)).strip()


def as_text(markdown: str) -> str:
    """The same for one that shows plain text."""
    return _MARKS.sub(lambda found: found[1] or "", markdown)


def iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
