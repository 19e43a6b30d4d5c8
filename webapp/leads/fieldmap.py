"""Which value of a lead fills which field of a destination.

A mapping is ``{target field: template}``. A template is an expression of ``webapp.leads.paths`` over the lead's document
(``email``, ``name | author_name``, ``attribution.utm_source``, ``attributes.plan``, ``facts.industry``), or words with such
expressions in braces (``Lead from {source}: {name | "somebody"}``). An empty template leaves the field out.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from webapp.leads import vocabulary
from webapp.leads.errors import Problem
from webapp.leads.kinds.base import Mapped
from webapp.leads.paths import BadPath, compiled
from webapp.leads.ports import LeadSnapshot
from webapp.leads.task_template import one_line

MAX_FIELDS = 100
MAX_VALUE = 20_000
_NAME = re.compile(r"[\w .:/-]{1,100}")
_BRACES = re.compile(r"\{([^{}]*)\}")

#: What a document has at its top, with an example's words: for the settings page.
SOURCES = (
    "id", "external_id", "url", "name", "first_name", "last_name", "email", "phone", "phone_e164", "company", "job_title",
    "city", "country", "message", "lang", "source", "budget", "platform", "author_name", "author_id", "status", "intent",
    "priority", "next_action", "confidence", "score", "qualified", "reasons", "consent", "consent_at", "assignee.name",
    "assignee.email", "decided_by", "created_at", "decided_at", "attribution.…", "attributes.…", "facts.…",
    "words.intent", "words.priority", "words.next_action", "words.source", "words.lang",
)  # fmt: skip


def document(lead: LeadSnapshot) -> dict[str, Any]:
    """The lead as templates see it; names in two parts even where only the whole was sent."""
    first, last = names(lead)
    return {
        "id": str(lead.lead_id),
        "external_id": lead.external_id,
        "url": lead.url,
        "name": lead.name,
        "display_name": lead.display_name,
        "first_name": first,
        "last_name": last,
        "email": lead.email,
        "phone": lead.phone_e164 or lead.phone,
        "phone_e164": lead.phone_e164,
        "company": lead.company,
        "job_title": lead.job_title,
        "city": lead.city,
        "country": lead.attributes.get("country"),
        "message": lead.message,
        "lang": lead.lang,
        "source": lead.source,
        "budget": lead.budget,
        "platform": lead.platform,
        "author_name": lead.author_name,
        "author_id": lead.author_id,
        "status": lead.status.value,
        "intent": lead.intent.value,
        "priority": lead.priority.value,
        "next_action": lead.next_action.value,
        "confidence": lead.confidence,
        "score": lead.score,
        "qualified": lead.qualified,
        "reasons": "; ".join(lead.reasons) or None,
        "consent": lead.consent,
        "consent_at": lead.consent_at.isoformat() if lead.consent_at else None,
        "assignee": {"name": lead.assignee_name, "email": lead.assignee_email},
        "decided_by": lead.decided_by,
        "created_at": lead.created_at.isoformat(),
        "decided_at": lead.event_at.isoformat(),
        "attribution": dict(lead.attribution),
        "attributes": dict(lead.attributes),
        "facts": dict(lead.facts),
        "words": vocabulary.of(lead),
    }


def names(lead: LeadSnapshot) -> tuple[str, str]:
    """(first, last): as sent, else the whole name at its first space."""
    if lead.first_name or lead.last_name:
        return one_line(lead.first_name or ""), one_line(lead.last_name or "")
    first, _, last = one_line(lead.name or lead.author_name or "").partition(" ")
    return first, last


def complete(kind_mapping: Sequence[Mapped], stored: Mapping[str, str]) -> dict[str, str]:
    """What counts: the kind's own templates, and over them the destination's."""
    return {field.name: field.template for field in kind_mapping} | dict(stored)


def filled(mapping: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, str]:
    """Target field → text, for those that yield something. A template that does not work yields nothing."""
    values = {}
    for name, template in mapping.items():
        value = fill(template, found)
        if value:
            values[name] = value[:MAX_VALUE]
    return values


def fill(template: str, found: Mapping[str, Any]) -> str | None:
    """What one template yields. Words with braces of which none yields anything yield nothing themselves."""
    template = template.strip()
    if not template:
        return None
    if "{" not in template:
        return _find(template, found)
    yields = False

    def value(match: re.Match[str]) -> str:
        nonlocal yields
        text = _find(match[1], found)
        yields = yields or text is not None
        return text or ""

    text = _BRACES.sub(value, template).strip()
    return text if yields and text else None


def _find(expression: str, found: Mapping[str, Any]) -> str | None:
    try:
        text = compiled(expression.strip()).find(found).text
    except BadPath:
        return None
    return text.strip() or None if text is not None else None


def problems_of(mapping: Mapping[str, str], known: Sequence[Mapped], *, open_fields: bool) -> tuple[Problem, ...]:
    """What is wrong with the templates, with fields that do not exist, and with needed ones that were emptied."""
    problems = []
    names_known = {field.name: field for field in known}
    if len(mapping) > MAX_FIELDS:
        problems.append(Problem("mapping", f"takes at most {MAX_FIELDS} fields"))
    for name, template in mapping.items():
        if name not in names_known and (not open_fields or not _NAME.fullmatch(name)):
            problems.append(Problem(name, "is not a field there"))
        elif not template.strip() and name in names_known and names_known[name].needed:
            problems.append(Problem(name, "is needed there"))
        elif wrong := template_problem(template):
            problems.append(Problem(name, wrong))
        elif name not in names_known and (other := _overlapping(name, {*names_known, *mapping})):
            problems.append(Problem(name, f"cannot be set beside {other}"))
    return tuple(problems)


def _overlapping(name: str, others: Iterable[str]) -> str | None:
    """A field that holds ``name`` or is a part of it: a dot leads into a composite one."""
    return next((o for o in sorted(others) if o.startswith(f"{name}.") or name.startswith(f"{o}.")), None)


def template_problem(template: str) -> str | None:
    """What is wrong with one template, in words, or None."""
    template = template.strip()
    if not template:
        return None
    if "{" in template or "}" in template:
        if "{" in _BRACES.sub("", template) or "}" in _BRACES.sub("", template):
            return "has a brace without its partner"
        expressions = _BRACES.findall(template)
    else:
        expressions = [template]
    for expression in expressions:
        try:
            compiled(expression.strip())
        except BadPath as error:
            return str(error)
    return None
