"""What the clients of CRMs share: by what a person is known there, when their follow-up is due, and what it says."""

import contextlib
import re
import uuid
from datetime import UTC, datetime, timedelta

import idna
from markdown_it import MarkdownIt

from webapp.leads.ports import LeadSnapshot
from webapp.leads.states import Intent, NextAction, Priority

#: Ids of people; never to be changed.
NAMESPACE = uuid.UUID("6f1b3b1e-5f4c-5d0e-9a51-6c3f0f0d7a11")
FOLLOW_UP = "📞 Sales Follow-up"
_MAX_MESSAGE = 4_000

#: How soon somebody has to follow up. P0 now, P1 today, P2 this week, P3 whenever (taxonomy: priority).
DUE_IN = {
    Priority.P0: timedelta(hours=1),
    Priority.P1: timedelta(hours=8),
    Priority.P2: timedelta(days=5),
    Priority.P3: timedelta(days=14),
}

_STEPS = {
    NextAction.CALL: ("Call them; if nobody answers, write and propose two times.", "Note what was agreed here."),
    NextAction.EMAIL: ("Answer their question by e-mail.", "Propose the next step and a date for it."),
    NextAction.QUALIFY: ("Find out what they need, by when, and who decides.", "Move it on, or close it."),
    NextAction.IGNORE: ("Check whether anything has to be done.", "Close the task if not."),
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
    """The static follow-up text: verdict, message, next steps."""
    facts = [
        ("Intent", lead.intent.value.replace("_", " ")),
        ("Priority", lead.priority.value),
        ("Confidence", f"{lead.confidence:.0%}"),
        ("Score", str(lead.score) if lead.score is not None else ""),
        ("E-mail", lead.email or ""),
        ("Phone", lead.phone_e164 or lead.phone or ""),
        ("Company", lead.company or ""),
        ("Source", lead.source),
        ("Decided by", lead.decided_by or ""),
    ]
    lines = [f"- **{name}:** {escape(one_line(value))}" for name, value in facts if value]
    message = lead.message.strip()
    shown = message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE].rstrip() + " …"
    quote = "\n".join(f"> {escape(line)}".rstrip() for line in shown.splitlines())
    steps = "\n".join(f"{i}. {step}" for i, step in enumerate(_next_steps(lead), 1))
    return "\n\n".join(["## Verdict", "\n".join(lines), "## Message", quote, "## Next steps", steps])


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


def _next_steps(lead: LeadSnapshot) -> tuple[str, ...]:
    first = "Read the message: it is a complaint." if lead.intent is Intent.COMPLAINT else None
    return (*([first] if first else []), *_STEPS[lead.next_action])


def escape(text: str) -> str:
    """A lead's words are text: no links, images or HTML of theirs in our CRM."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>#!|~" else char for char in text)


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())[:200]


def iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
