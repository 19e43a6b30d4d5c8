"""What the clients of CRMs share: by what a person is known there, when their follow-up is due, and what it says."""

import contextlib
import re
import uuid
from datetime import UTC, datetime, timedelta

import idna
from markdown_it import MarkdownIt

from webapp.leads import task_template
from webapp.leads.ports import LeadSnapshot
from webapp.leads.states import Priority
from webapp.leads.task_template import escape

#: Ids of people; never to be changed.
NAMESPACE = uuid.UUID("6f1b3b1e-5f4c-5d0e-9a51-6c3f0f0d7a11")
FOLLOW_UP = "📞 Sales Follow-up"

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
    return f"Verdict: {lead.intent.value.replace('_', ' ')}, {lead.priority.value}"


def verdict_markdown(lead: LeadSnapshot) -> str:
    """What a note says: the verdict with its reasons."""
    reasons = "\n".join(f"- {escape(one_line(reason))}" for reason in lead.reasons)
    return task_markdown(lead) + (f"\n\n## Why\n\n{reasons}" if reasons else "")


def withdrawn_title(lead: LeadSnapshot) -> str:
    """Of a task that was made for a lead that is none after all."""
    return f"✕ Withdrawn — {one_line(lead.display_name)}"


_MARKDOWN = MarkdownIt("commonmark", {"html": False})
_MARKS = re.compile(r"\\([\\`*_\[\]<>#!|~])|\*\*|^#+ ", re.MULTILINE)


def as_html(markdown: str) -> str:
    """A task's text for a CRM that shows HTML; HTML in it is text."""
    return str(_MARKDOWN.render(markdown)).strip()


def as_text(markdown: str) -> str:
    """The same for one that shows plain text."""
    return _MARKS.sub(lambda found: found[1] or "", markdown)


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())[:200]


def iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
