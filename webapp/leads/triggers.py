"""Which leads a destination wants: on what occasion, and of what kind. Pure.

Rules are ``{"on": [trigger…], "intent": […], "priority": […], "source": […], "country": […], "lang": […],
"min_score": n, "qualified_only": true}``, all of them optional. A lead is wanted when one of the triggers holds for it as
it stands now and it passes every filter, so what was queued is looked at again in the same words before it is sent.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from webapp.leads import suspicion
from webapp.leads.errors import Problem
from webapp.leads.states import (
    PRIORITY_VIEW,
    UNDELIVERABLE_INTENTS,
    Intent,
    LeadStatus,
    Priority,
    Trigger,
)

#: taxonomy: qualified and deliverable.
DEFAULT_ON = (Trigger.NEW_AUTO, Trigger.APPROVED, Trigger.OVERRIDDEN)
#: Lists of values that a lead must be one of.
LISTS = ("intent", "priority", "source", "country", "lang")

_MAX_LISTED = 100


class Looked(Protocol):
    """What of a lead decides."""

    status: Any
    intent: Any
    priority: Any
    source: Any
    lang: Any
    score: Any
    qualified: Any
    settled_at: Any
    attributes: Any
    verdict: Any


def matched(rules: Mapping[str, Any], lead: Looked) -> frozenset[Trigger]:
    """The triggers that hold; empty when a filter leaves the lead out. Whether the person may be contacted is asked
    elsewhere (webapp.leads.outbox)."""
    wanted = {Trigger(name) for name in rules.get("on") or DEFAULT_ON}
    holds = frozenset(trigger for trigger in wanted if _holds(trigger, lead))
    return holds if holds and _passes(rules, lead) else frozenset()


def before_decision(rules: Mapping[str, Any]) -> bool:
    """May a lead be wanted that nobody, and no machine, has approved?"""
    return bool(set(rules.get("on") or ()) & {Trigger.PRIORITY_HIGH, Trigger.QUALIFIED, Trigger.COLD})


def _holds(trigger: Trigger, lead: Looked) -> bool:
    if trigger is Trigger.REJECTED:
        return bool(lead.status == LeadStatus.REJECTED)
    if lead.status == LeadStatus.REJECTED or (lead.intent in UNDELIVERABLE_INTENTS and trigger is not Trigger.COLD):
        return False
    if suspicion.awaits_a_person(lead.verdict or {}, lead.status):
        return False
    settled = lead.settled_at is not None
    match trigger:
        case Trigger.APPROVED:
            return bool(lead.status == LeadStatus.APPROVED)
        case Trigger.OVERRIDDEN:
            return bool(lead.status == LeadStatus.OVERRIDDEN)
        case Trigger.NEW_AUTO:
            return settled and bool(lead.status == LeadStatus.NEW_AUTO)
        case Trigger.PRIORITY_HIGH:
            return settled and PRIORITY_VIEW[Priority(lead.priority)] == "high"
        case Trigger.QUALIFIED:
            return settled and lead.qualified is True
        case Trigger.COLD:
            return settled and lead.qualified is False
    return False


def _passes(rules: Mapping[str, Any], lead: Looked) -> bool:
    if rules.get("qualified_only") and not lead.qualified:
        return False
    least = rules.get("min_score")
    if least is not None and (lead.score is None or lead.score < least):
        return False
    return all(not rules.get(name) or _value(name, lead).casefold() in _folded(rules[name]) for name in LISTS)


def _folded(values: Sequence[str]) -> set[str]:
    return {str(value).casefold() for value in values}


def _value(name: str, lead: Looked) -> str:
    if name == "country":
        return str((lead.attributes or {}).get("country") or "")
    value = getattr(lead, name)
    return str(getattr(value, "value", value) or "")


def checked(given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """(rules as they are stored, what is wrong) of a form: lists as lists or separated by commas."""
    rules: dict[str, Any] = {}
    problems: list[Problem] = []
    known = set(Trigger)
    on = _listed(given.get("on"))
    if unknown := [name for name in on if name not in known]:
        problems.append(Problem("on", f"knows no occasion {unknown[0]!r}"))
    if not on:
        problems.append(Problem("on", "needs at least one occasion"))
    if set(on) != set(DEFAULT_ON):
        rules["on"] = [trigger.value for trigger in Trigger if trigger in on]
    vocabularies: dict[str, set[str]] = {"intent": set(Intent), "priority": set(Priority)}
    for name in LISTS:
        values = _listed(given.get(name))
        if wrong := [value for value in values if value not in vocabularies.get(name, {value})]:
            problems.append(Problem(name, f"knows no {wrong[0]!r}"))
        if len(values) > _MAX_LISTED:
            problems.append(Problem(name, f"takes at most {_MAX_LISTED} values"))
        if values:
            rules[name] = values
    least = str(given.get("min_score") or "").strip()
    if least:
        if re.fullmatch(r"[0-9]{1,3}", least) and int(least) <= 100:
            rules["min_score"] = int(least)
        else:
            problems.append(Problem("min_score", "must be a whole number from 0 to 100"))
    if given.get("qualified_only"):
        rules["qualified_only"] = True
    return rules, tuple(problems)


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    parts = value.split(",") if isinstance(value, str) else list(value)
    return [part for part in dict.fromkeys(str(part).strip() for part in parts) if part]
