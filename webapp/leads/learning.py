"""All facts of a lead put together: what it says itself, what was heard from outside, and what follows from both.

Each part is safe to fail: what it would have said is missing, and the reason is told.
"""

import logging
from collections.abc import Callable, Sequence

from webapp.leads import fact_mapping, industries
from webapp.leads.enrichment import Gathered
from webapp.leads.stages import enrich, names, place
from webapp.leads.types import Fact, LeadFacts, best

log = logging.getLogger(__name__)


def learn(
    facts: LeadFacts,
    *,
    default_region: str,
    language: str,
    gathered: Gathered,
    known: Sequence[Fact] = (),
    more: Sequence[Fact] = (),
    problems: list[str],
) -> tuple[Fact, ...]:
    """``known``: facts of earlier runs, of which those stay whose source gave no answer this time. ``more``: facts from
    elsewhere. ``problems`` gets a line for each part that failed."""
    learned = list(enrich.enrich(facts, default_region=default_region))
    learned += gathered.facts
    learned += [fact for fact in known if fact.provider in gathered.missing]
    learned += more

    def add(what: str, part: Callable[[], Sequence[Fact]]) -> None:
        try:
            learned.extend(part())
        except Exception as error:
            log.exception("%s could not be told", what)
            problems.append(f"{what}: {type(error).__name__}")

    add("language", lambda: _language(language, facts.message))
    vietnamese = language in ("vi", "mixed") or any(
        fact.name == "phone_region" and fact.value == "VN" for fact in learned
    )
    add("name", lambda: names.name_facts(facts.name, vietnamese=vietnamese))
    add("place", lambda: place.place_facts(facts.attributes, learned, language=language))
    add("industry", lambda: industries.facts(facts.company, learned))
    add("company size", lambda: _size(learned))
    return tuple(learned)


def _language(language: str, message: str) -> Sequence[Fact]:
    if language not in ("en", "vi") or len(message.split()) < 3:
        return ()
    return (Fact("language", language, "message", 0.8 if language == "vi" else 0.6),)


def _size(learned: Sequence[Fact]) -> Sequence[Fact]:
    known = best(learned)
    people = known.get("company_employees")
    if people is None or "company_size" in known or not isinstance(people.value, int):
        return ()
    note = f"of {people.value:,} employees"
    return (Fact("company_size", fact_mapping.size_of(people.value), people.provider, people.confidence, note=note),)
